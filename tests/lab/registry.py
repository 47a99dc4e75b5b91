"""A registry of the lab: Debian's docker-registry with TLS in a namespace of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from . import ports, storage
from .certificates import Certificates
from .image import Image
from .node import Node


class Registry:
    """One registry, listening on all addresses of its node."""

    def __init__(self, node: Node, certificates: Certificates, listen: Sequence[int] = (443,)) -> None:
        self.node = node
        self.listen = tuple(listen)
        self._certificates = certificates
        self._storage = node.directory / "storage"
        self._servers: list[tuple[int, subprocess.Popen[str]]] = []

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that the registry answers on from the start, the main IPv4 and IPv6 one first."""
        return self.node.role.addresses

    @property
    def address(self) -> str:
        """The main IPv4 address."""
        return self.addresses[0]

    @property
    def address_v6(self) -> str:
        """The main IPv6 address."""
        return self.addresses[1]

    def start(self) -> None:
        """Start one server per port, without waiting for them."""
        for port in self.listen:
            config = self.node.directory / f"registry-{port}.yml"
            # YAML is a superset of JSON.
            config.write_text(json.dumps(self._config(port)), encoding="utf-8")
            with self._log(port).open("a", encoding="utf-8") as log:
                server = self.node.popen(
                    ["docker-registry", "serve", str(config)], stdout=log, stderr=subprocess.STDOUT
                )
            self._servers.append((port, server))

    def wait(self) -> None:
        """Wait until all ports are open."""
        for port, server in self._servers:
            # Go listens on IPv6's any-address for both families.
            ports.wait_open(server, self.node.namespace, port, ("tcp6",), self._log(port))

    def stop(self) -> None:
        """Stop the servers: connections are refused from now on, until the next start."""
        for _, server in self._servers:
            self.node.stop(server)
        self._servers.clear()

    def add_image(self, repository: str, tag: str, image: Image) -> None:
        """Add an image, also while the registry runs."""
        storage.add(self._storage, repository, tag, image)

    def log(self) -> str:
        """Return what the servers have logged so far, a line per request."""
        paths = [self._log(port) for port in self.listen]
        return "".join(path.read_text(encoding="utf-8") for path in paths if path.exists())

    def counters(self) -> dict[str, int]:
        """Return the namespace's kernel counters, which tell what has reached it: 'Tcp.PassiveOpens' …"""
        if not self._servers:
            raise RuntimeError(f"the registry {self.node.name} is not running")
        return ports.counters(self._servers[0][1].pid)

    def _log(self, port: int) -> Path:
        return self.node.directory / f"registry-{port}.log"

    def _config(self, port: int) -> dict[str, object]:
        tls = {"certificate": str(self._certificates.chain), "key": str(self._certificates.key)}
        return {
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {
                "filesystem": {"rootdirectory": str(self._storage)},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            # Without a drain time, connections that a client keeps open would hold up the lab's end.
            "http": {"addr": f":{port}", "secret": "lab", "draintimeout": "10ms", "tls": tls},
        }

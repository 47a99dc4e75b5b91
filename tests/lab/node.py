"""One namespace of the lab as a place to run programs in."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import network, processes, topology
from .namespaces import Namespace
from .processes import Finished, Place, Stream


class Node:
    """A namespace with its own resolv.conf and hosts file, bound over those of /etc for its programs."""

    def __init__(
        self, role: topology.Role, namespace: Namespace, services: Path, directory: Path, ca: Path
    ) -> None:
        self.role = role
        self.namespace = namespace
        self.services = services
        self.directory = directory
        self.children: list[subprocess.Popen[str]] = []
        # A home of its own keeps credentials and settings of the machine out, and caches in.
        self.env = {
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            "TMPDIR": str(directory),
            "SSL_CERT_FILE": str(ca),
            "CURL_CA_BUNDLE": str(ca),
            "REQUESTS_CA_BUNDLE": str(ca),
        }
        self._known: dict[str, Path] = {}
        directory.mkdir()

    @property
    def name(self) -> str:
        """The role's name."""
        return self.role.name

    def run(
        self,
        argv: Sequence[str],
        *,
        cgroup: Path | None = None,
        hosts: Mapping[str, str] | None = None,
        resolver: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        stdin: str | None = None,
        timeout: float = 30.0,
    ) -> Finished:
        """Run a program to its end.

        `hosts` are further lines of the hosts file, name to address; `resolver` is another one than the
        lab's. The seconds include about 10 ms for getting into the namespace.
        """
        place = self._place(cgroup, hosts, resolver)
        return processes.run(
            argv, place, env={**self.env, **(env or {})}, cwd=cwd, stdin=stdin, timeout=timeout
        )

    def popen(
        self,
        argv: Sequence[str],
        *,
        cgroup: Path | None = None,
        hosts: Mapping[str, str] | None = None,
        resolver: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
    ) -> subprocess.Popen[str]:
        """Start a server or daemon. Without `cgroup` it runs beside the client's control group."""
        child = processes.start(
            argv,
            self._place(cgroup, hosts, resolver),
            env={**self.env, **(env or {})},
            cwd=cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
        )
        self.children.append(child)
        return child

    def stop(self, child: subprocess.Popen[str]) -> None:
        """End a program that `popen` has started."""
        processes.stop(child)
        if child in self.children:
            self.children.remove(child)

    def add_addresses(self, *addresses: str) -> None:
        """Give the namespace further addresses."""
        network.add_addresses(self.namespace, addresses)

    def close(self) -> None:
        """End all programs that `popen` has started and that still run."""
        for child in self.children:
            child.terminate()
        for child in self.children:
            processes.stop(child)
        self.children.clear()

    def _place(self, cgroup: Path | None, hosts: Mapping[str, str] | None, resolver: str | None) -> Place:
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        lines += [f"{address} {name}" for name, address in (hosts or {}).items()]
        files = {
            "/etc/resolv.conf": self._file(f"nameserver {resolver or topology.RESOLVER}"),
            "/etc/hosts": self._file(*lines),
            # Modules such as nss-resolve reach a resolver of the machine by a unix socket, which no
            # network namespace holds back.
            "/etc/nsswitch.conf": self._file("hosts: files dns", "passwd: files", "group: files"),
        }
        return Place(self.namespace, cgroup or self.services, files)

    def _file(self, *lines: str) -> Path:
        # Never written twice: a running program may have the old one bound over its own.
        content = "\n".join(lines) + "\n"
        path = self._known.get(content)
        if path is None:
            path = self._known[content] = self.directory / f"etc-{len(self._known)}"
            path.write_text(content, encoding="utf-8")
        return path

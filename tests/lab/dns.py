"""The lab's resolver: dnsmasq, which knows the lab's names and nothing else."""

from __future__ import annotations

import ipaddress
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from . import ports, topology
from .node import Node

_QUERY = re.compile(r"query\[(\w+)\] (\S+) from")


@dataclass(frozen=True)
class Addresses:
    """The A and AAAA records of a name."""

    addresses: tuple[str, ...]
    ttl: int


@dataclass(frozen=True)
class Cname:
    """The CNAME record of a name. Its target must be a name of the lab too."""

    target: str
    ttl: int


class Dns:
    """A resolver whose records change at run time."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.records: dict[str, Addresses | Cname] = {
            name: Addresses(addresses, ttl) for name, (addresses, ttl) in topology.ADDRESSES.items()
        }
        self.records.update({name: Cname(target, ttl) for name, (target, ttl) in topology.CNAMES.items()})
        self._config = node.directory / "dnsmasq.conf"
        self._log = node.directory / "dnsmasq.log"
        self._server: subprocess.Popen[str] | None = None

    def set_records(self, name: str, addresses: Sequence[str], ttl: int = topology.DEFAULT_TTL) -> None:
        """Give a name these addresses in the place of what it had."""
        self.update({name: Addresses(tuple(addresses), ttl)})

    def set_cname(self, name: str, target: str, ttl: int = topology.DEFAULT_TTL) -> None:
        """Make a name an alias of another one of the lab."""
        self.update({name: Cname(target, ttl)})

    def remove(self, *names: str) -> None:
        """Make names unknown (NXDOMAIN)."""
        self.update(dict.fromkeys(names))

    def update(self, changes: dict[str, Addresses | Cname | None]) -> None:
        """Change several names at once, None for removal; the changes are in force on return."""
        for name, record in changes.items():
            if record is None:
                self.records.pop(name, None)
            else:
                self.records[name] = record
        if self._server is not None:
            # dnsmasq re-reads host files on SIGHUP, but neither TTLs nor aliases. It starts in no time.
            self.stop()
            self.start()
            self.wait()

    def queries(self) -> list[tuple[str, str]]:
        """Return the type and name of all queries so far, in their order."""
        return _QUERY.findall(self._log.read_text(encoding="utf-8")) if self._log.exists() else []

    def start(self) -> None:
        """Start the server, without waiting for it."""
        self._config.write_text("\n".join(self._lines()) + "\n", encoding="utf-8")
        with self._log.open("a", encoding="utf-8") as log:
            self._server = self.node.popen(
                ["dnsmasq", "--keep-in-foreground", f"--conf-file={self._config}"],
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self) -> None:
        """Wait until the server has its ports open."""
        assert self._server is not None
        tables = ("udp", "udp6", "tcp", "tcp6")
        ports.wait_open(self._server, self.node.namespace, 53, tables, self._log)

    def stop(self) -> None:
        """Stop the server: queries are refused from now on, until the next start."""
        if self._server is not None:
            self.node.stop(self._server)
            self._server = None

    def _lines(self) -> list[str]:
        lines = [
            "user=root",  # no other user may read the lab's directory
            "group=root",  # the kernel forgets the signal of the parent's death on a change of group
            "pid-file=",
            "no-resolv",
            "no-hosts",
            "bind-interfaces",  # leaves the rogue resolver's addresses free
            f"listen-address={topology.RESOLVER}",
            f"listen-address={topology.RESOLVER_V6}",
            "address=/#/",  # NXDOMAIN for all other names
            "log-queries",
            "log-facility=-",
        ]
        for name, record in self.records.items():
            if isinstance(record, Cname):
                lines.append(f"cname={name},{record.target},{record.ttl}")
                continue
            for address in record.addresses:
                ipaddress.ip_address(address)  # dnsmasq would take a typing error for a further name
                lines.append(f"host-record={name},{address},{record.ttl}")
        return lines

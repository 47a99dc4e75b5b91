"""Zones and their owner in a lab, resolvers of all kinds that ask it, and programs that ask those."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from . import programs, topology
from .lab import Lab
from .network import INTERFACE
from .node import Node
from .servers import Bind, LocalDnsmasq, Resolved, Server, Unbound
from .zones import NETWORK_V4, NETWORK_V6, ZONES, Zones

OWNER = topology.ROGUE_RESOLVER
PORT = 443

# The resolvers by their names: some in the namespace of DNS, some on the client's own host.
ADDRESSES = {
    "unbound": "10.77.0.55",
    "bind": "10.77.0.56",
    "dnsmasq": "10.77.0.57",
    "resolved": "127.0.0.53",
    "local": "127.0.0.1",
    "tunnel": "10.255.255.254",  # the address that WSL gives Windows' resolver on the loopback device
}
REMOTE = ("unbound", "bind", "dnsmasq")
SERVERS = tuple(ADDRESSES)
CLIENTS = ("glibc", "musl", "c-ares", "go", "curl")

_LOOPBACK_INDEX = 1
_LOCAL_TABLE = 255
_SCOPE_HOST = 254
_SOURCES = Path(__file__).parent / "clients"


@dataclass(frozen=True)
class Reached:
    """Whether a client got to all addresses; the error of each that it tells of (0 for none); its words."""

    ok: bool
    errors: Mapping[str, int]
    said: str

    @property
    def refused(self) -> bool:
        """Whether the client was told that it may not connect, wherever it tried."""
        if self.errors:
            return set(self.errors.values()) == {errno.EPERM}
        return not self.ok and "operation not permitted" in self.said.lower()


class DnsLab:
    """What `dns_lab` gives: the lab, its zones, and clients of resolvers that start when they are needed."""

    def __init__(self, lab: Lab, zones: Zones, directory: Path) -> None:
        self.lab = lab
        self.zones = zones
        self._servers: dict[str, Server] = {}
        self._directory = directory

    def server(self, name: str) -> Server:
        """Return one of SERVERS, started."""
        found = self._servers.get(name)
        if found is None:
            found = self._make(name)
            found.start()
            self._servers[name] = found
            found.wait()
        return found

    def reach(self, client: str, server: str, name: str) -> Reached:
        """Have one of CLIENTS resolve a name by one of SERVERS and connect to what it finds."""
        if client == "go":
            pull = self.lab.client.pull(f"{name}/{self.lab.image_name}", resolver=self.server(server).address)
            return Reached(pull.ok, {}, pull.stderr)
        if client == "curl":
            argv = ["curl", "--verbose", "--silent", "--fail", "--max-time", "5", f"https://{name}/v2/"]
            finished = self.lab.client.run(argv, resolver=self.server(server).address)
            return Reached(finished.ok, {}, finished.stderr)
        return {"glibc": self.glibc, "musl": self.musl, "c-ares": self.cares}[client](server, name)

    def glibc(self, server: str, *names: str, options: str = "") -> Reached:
        """Resolve with glibc, with options of resolv.conf, and connect to every address."""
        program = self._program("gcc", "connect.c")
        return self._connect([program, str(PORT), *names], server, {"RES_OPTIONS": options})

    def musl(self, server: str, *names: str) -> Reached:
        """Resolve with musl, which knows neither EDNS nor, up to version 1.2.3, DNS over TCP."""
        # Static, or it would need musl's loader on the machine.
        program = self._program("musl-gcc", "connect.c", "-static")
        return self._connect([program, str(PORT), *names], server)

    def cares(self, server: str, *names: str, size: int = 0) -> Reached:
        """Resolve with c-ares, which takes datagrams of a size (EDNS), or of 512 octets (without)."""
        program = self._program("gcc", "cares.c", "-lcares")
        return self._connect([program, str(PORT), str(size), *names], server)

    def dig(self, server: str, *words: str) -> str:
        """Ask with dig, from within the client's control group."""
        argv = ["dig", f"@{self.server(server).address}", "+tries=1", "+time=3", *words]
        return self.lab.client.run(argv).check().stdout

    def close(self) -> None:
        """End all servers."""
        for server in self._servers.values():
            server.stop()

    def _make(self, name: str) -> Server:
        node: Node = self.lab.dns.node if name in REMOTE else self.lab.client
        address = ADDRESSES[name]
        if name == "unbound":
            return Unbound(node, address, ZONES, OWNER)
        if name == "bind":
            return Bind(node, address, forward=ZONES, to=OWNER)
        if name == "resolved":
            return Resolved(node, OWNER)
        # It follows no alias from zone to zone, but relies on a resolver that does.
        return LocalDnsmasq(node, address, self.server("bind").address)

    def _program(self, compiler: str, source: str, *options: str) -> str:
        target = self._directory / f"{compiler}-{source.removesuffix('.c')}"
        if not target.exists():
            argv = [programs.find(compiler), "-O", str(_SOURCES / source), "-o", str(target), *options]
            subprocess.run(argv, check=True)
        return str(target)

    def _connect(self, argv: Sequence[str], server: str, env: Mapping[str, str] | None = None) -> Reached:
        finished = self.lab.client.run(argv, resolver=self.server(server).address, env=env)
        lines = [line.split() for line in finished.stdout.splitlines() if not line.startswith("!")]
        errors = {address: int(error) for address, error in lines}
        return Reached(finished.ok and bool(errors), errors, finished.stdout + finished.stderr)


@contextlib.contextmanager
def dns_lab(lab: Lab, zones: Zones, directory: Path) -> Iterator[DnsLab]:
    """The zones in a lab. Programs are built in the directory, as /run may forbid running any."""
    _plumb(lab, "add")
    try:
        with Bind(lab.dns.node, OWNER, zones.texts()):
            with contextlib.closing(DnsLab(lab, zones, directory)) as result:
                yield result
    finally:
        _plumb(lab, "del")


def _plumb(lab: Lab, command: str) -> None:
    """Give the resolvers their addresses and the allowed registry all of the zones' networks."""
    with IPRoute(netns=lab.dns.node.namespace.name) as netlink:
        for name in REMOTE:
            prefix = {"address": ADDRESSES[name], "prefixlen": topology.PREFIX_V4}
            netlink.addr(command, index=_index(netlink), **prefix)
    with IPRoute(netns=lab.allowed.node.namespace.name) as netlink:
        for network in (NETWORK_V4, NETWORK_V6):
            local = {"type": "local", "table": _LOCAL_TABLE, "scope": _SCOPE_HOST}
            netlink.route(command, dst=str(network), oif=_LOOPBACK_INDEX, **local)
    with IPRoute(netns=lab.client.namespace.name) as netlink:
        netlink.addr(command, index=_LOOPBACK_INDEX, address=ADDRESSES["tunnel"], prefixlen=32)
        for network, gateway in ((NETWORK_V4, topology.ALLOWED), (NETWORK_V6, topology.ALLOWED_V6)):
            netlink.route(command, dst=str(network), oif=_index(netlink), gateway=gateway)


def _index(netlink: Any) -> int:
    return int(netlink.link_lookup(ifname=INTERFACE)[0])

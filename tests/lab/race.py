"""The race between knowing an address and being allowed to use it: fresh names, each connected to at once."""

from __future__ import annotations

import errno
import ipaddress
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pyroute2 import IPRoute

from . import network, ports, programs, topology
from .lab import Lab
from .servers.server import Server

DOMAIN = "race.test"
UNLISTED = "other.test"  # has the same addresses, and the policy does not name it
RESOLVER = "10.77.0.58"
PORT = 5000  # on 443 the lab's registry listens
# Of every address there is one name, h<number>.race.test; all of them are the allowed registry's.
NETWORK = ipaddress.IPv4Network("10.128.0.0/9")

# The wildcard keeps the daemon from looking names up ahead of the client.
POLICY = f"""\
version: 1
registries:
  - host: "*.{DOMAIN}"
    ports: [{PORT}]
    private: true
refusals:
  responder: off
resolvers: [{RESOLVER}]
# Its datagrams say no name.
connections: {{ read_names: false }}
"""

_SOURCE = Path(__file__).parent / "clients" / "race.c"
_LOOPBACK_INDEX = 1
_LOCAL_TABLE = 255
_SCOPE_HOST = 254


class Names(Server):
    """dnsmasq, which makes the names up as they are asked for."""

    def prepare(self) -> tuple[list[str], Mapping[str, str]]:
        """See Server."""
        lines = [
            "user=root",
            "group=root",
            "pid-file=",
            "no-resolv",
            "no-hosts",
            "bind-interfaces",
            f"listen-address={self.address}",
            *(f"local=/{domain}/" for domain in (DOMAIN, UNLISTED)),
            *(f"synth-domain={domain},{NETWORK[0]},{NETWORK[-1]},h*" for domain in (DOMAIN, UNLISTED)),
            f"local-ttl={topology.DEFAULT_TTL}",
            "cache-size=0",
            "log-facility=-",
        ]
        path = self.directory / "dnsmasq.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return ["dnsmasq", "--keep-in-foreground", f"--conf-file={path}"], {}


@dataclass(frozen=True)
class Outcome:
    """What became of the cycles: how many ended with which errno, 0 for success.

    `first` is the number of the first name.
    """

    first: int
    cycles: int
    seconds: float
    repeated: int
    errors: Mapping[int, int]

    @property
    def refused(self) -> int:
        """How often the client was told that it may not connect."""
        return self.errors.get(errno.EPERM, 0)

    @property
    def failed(self) -> int:
        """How often something else went wrong."""
        return self.cycles - self.refused - self.errors.get(0, 0)

    @property
    def per_second(self) -> float:
        """Cycles in a second."""
        return self.cycles / self.seconds


class Race:
    """The names, their resolver, and the program that races, in a lab for the time of a `with` block.

    No name is ever used twice. The program is built in `directory`, as /run may forbid running any.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self._program = str(directory / "race")
        self._next = 0
        self.names = Names(lab.dns.node, RESOLVER)

    def __enter__(self) -> Race:
        argv = [programs.find("gcc"), "-O2", "-pthread", str(_SOURCE), "-o", self._program]
        subprocess.run(argv, check=True)
        self._plumb("add")
        node = self._lab.allowed.node
        self._sink = node.popen([self._program, "sink", str(PORT)])
        ports.wait_open(self._sink, node.namespace, PORT, ("tcp", "udp"), node.directory / "none")
        self.names.start()
        self.names.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.names.stop()
        self._lab.allowed.node.stop(self._sink)
        self._plumb("del")

    def fresh(self, count: int) -> int:
        """The first of so many numbers that nobody has used."""
        first = self._next
        self._next += count
        if self._next > NETWORK.num_addresses:
            raise RuntimeError(f"{NETWORK} has no more fresh addresses")
        return first

    def run(
        self,
        count: int,
        how: str = "ask-both",
        threads: int = 4,
        cgroup: Path | None = None,
        resolver: str = RESOLVER,
    ) -> Outcome:
        """So many cycles from the client's control group, or another one; see clients/race.c for `how`."""
        first = self.fresh(count)
        words = [how, str(PORT), resolver, str(first), str(count), str(threads)]
        finished = self._lab.client.run([self._program, *words], cgroup=cgroup, timeout=300).check()
        said = json.loads(finished.stdout)
        errors = {int(number): times for number, times in said["outcomes"].items()}
        return Outcome(first, count, said["seconds"], said["repeated"], errors)

    def arrived(self) -> dict[str, int]:
        """The kernel's counters where all connections lead to."""
        return ports.counters(self._sink.pid)

    def _plumb(self, command: str) -> None:
        """Give the resolver its address and the allowed registry all of the network."""
        with IPRoute(netns=self._lab.dns.node.namespace.name) as netlink:
            index = netlink.link_lookup(ifname=network.INTERFACE)[0]
            netlink.addr(command, index=index, address=RESOLVER, prefixlen=topology.PREFIX_V4)
        with IPRoute(netns=self._lab.allowed.node.namespace.name) as netlink:
            local = {"type": "local", "table": _LOCAL_TABLE, "scope": _SCOPE_HOST}
            netlink.route(command, dst=str(NETWORK), oif=_LOOPBACK_INDEX, **local)
        with IPRoute(netns=self._lab.client.namespace.name) as netlink:
            index = netlink.link_lookup(ifname=network.INTERFACE)[0]
            netlink.route(command, dst=str(NETWORK), oif=index, gateway=topology.ALLOWED)

"""What a packet costs: nanoseconds by BPF_PROG_TEST_RUN, and packets per second of CPU time in the lab.

    python -m benchmarks.egress [--quick]

Nanoseconds are those of the whole chain of programs from a scope's first one on. One that does nothing is run
beside them: what it takes is the test run's own. In the lab the same sender goes through nothing, ours and a
set of nftables with the same addresses.
"""

from __future__ import annotations

import ipaddress
import json
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from benchmarks import report
from benchmarks.designs import HOLE, NFTSET, NONE, OURS, Designs
from benchmarks.measure import Rounds, middle, ratios, take_turns
from benchmarks.report import Figure, Part
from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.events import EventSource
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.syscall import AttachType, ProgramType
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.policy.names import HostPattern
from ram_ebpf.policy.rules import NameRule, RuleSet
from tests.lab import ports, programs
from tests.lab.race import DOMAIN, NETWORK

_SOURCE = Path(__file__).with_name("sender.c")
_CLIENT, _RESOLVER, _PORT = "10.0.0.2", "10.0.0.53", 443
_LEARNED = [f"198.18.0.{number}" for number in range(8)]
_UNKNOWN = "203.0.113.1"

_ROUNDS, _ROUNDS_QUICK = 25, 3
_REPEAT = 20_000
_SINGLE = 150  # runs of what cannot be repeated, a round
# Fewer than the rings hold, so that none is lost: a lost event is a cheap one.
_TOLD = 500

_SEND_ROUNDS, _SEND_ROUNDS_QUICK = 12, 1
_SEND_SECONDS = 0.15
_ADDRESSES = 1000

_EMPTY = "empty program"
_ESTABLISHED = "established"


class Bench:
    """A plane and packets for it. Every measurement says what the programs are to count, and is checked."""

    def __init__(self) -> None:
        rule = NameRule(HostPattern.parse(f"*.{DOMAIN}"), (_PORT,), "benchmark", False, False, 1)
        resolver = TrustedResolver(ipaddress.ip_address(_RESOLVER))
        # Packets of a test run are always on the loopback interface, which must not be told from others.
        self.plane = Plane(RuleSet((rule,), ()), Settings(loopback=0), [resolver])
        self._fds = self.plane.open_scope().programs.fds
        # With a reader, as telling is part of the cost: without rings an event ends early.
        self._events = EventSource(self.plane)
        code = syscall.instructions((0xB7, 0, 0, 0, 1), (0x95, 0, 0, 0, 0))  # r0 = 1; exit
        self._empty, _ = syscall.program_load(
            "bench_empty", ProgramType.CGROUP_SKB, code, AttachType.INET_EGRESS
        )

    def close(self) -> None:
        """Gives everything back."""
        self._events.close()
        self.plane.close()
        syscall.close_all([self._empty])

    def candidates(self) -> dict[str, Callable[[], float]]:
        """What is measured, each as a function that gives nanoseconds."""
        for address in _LEARNED:
            assert self._lookup(f"learn.{DOMAIN}", address)
        udp = _frame(_LEARNED[0], UDP(sport=4000, dport=_PORT) / Raw(bytes(64)))
        syn = _frame(_LEARNED[0], TCP(sport=4000, dport=_PORT, flags="S"))
        denied = _frame(_UNKNOWN, UDP(sport=4000, dport=_PORT) / Raw(bytes(64)))
        listed, unlisted = _query(f"h12345.{DOMAIN}"), _query("h12345.other.test")
        return {
            _EMPTY: self._time_empty,
            # A test run has one socket, which is known from its first packet on.
            _ESTABLISHED: partial(self._repeat, udp, _REPEAT, Reason.ALLOWED_ESTABLISHED),
            "learned, opens a connection": partial(self._repeat, syn, _REPEAT, Reason.ALLOWED_LEARNED),
            "denied, and told": partial(self._repeat, denied, _TOLD, Reason.DENIED_UNKNOWN_ADDRESS),
            "query, listed": partial(self._repeat, listed, _REPEAT, Reason.ALLOWED_RESOLVER),
            "query, unlisted": partial(self._repeat, unlisted, _REPEAT, Reason.ALLOWED_RESOLVER),
            "reply, 1 address, and told": partial(self._replies, 1),
            "reply, 8 addresses, and told": partial(self._replies, 8),
            "reply, unlisted, and told": partial(self._replies, 1, "other.test", Reason.DNS_NOT_LISTED),
        }

    def _time_empty(self) -> float:
        packet = _frame(_UNKNOWN, UDP(sport=4000, dport=_PORT))
        return syscall.program_test_run(self._empty, packet, _REPEAT).duration_ns

    def _repeat(self, packet: bytes, count: int, reason: Reason) -> float:
        self._drain()
        before = Counter(self.plane.counters())
        taken = syscall.program_test_run(self._fds["out"], packet, count).duration_ns
        counted = Counter(self.plane.counters()) - before
        assert counted[reason] >= count - 1, counted
        return taken

    def _replies(self, addresses: int, domain: str = DOMAIN, reason: Reason = Reason.DNS_LEARNED) -> float:
        """Each reply ends its query, so a query goes before each; single runs, of which the median counts."""
        self._drain()
        name = f"h12345.{domain}"
        query, reply = _query(name), _reply(name, _LEARNED[:addresses])
        before = Counter(self.plane.counters())
        taken = []
        for _ in range(_SINGLE):
            syscall.program_test_run(self._fds["out"], query)
            taken.append(syscall.program_test_run(self._fds["in"], reply).duration_ns)
        counted = Counter(self.plane.counters()) - before
        assert counted[reason] == _SINGLE, counted
        return statistics.median(taken)

    def _lookup(self, name: str, address: str) -> bool:
        return all(
            syscall.program_test_run(self._fds[label], packet).retval == 1
            for label, packet in (
                ("out", _query(name)),
                ("in", _reply(name, [address])),
            )
        )

    def _drain(self) -> None:
        self._events.drain(lambda event: None)


def _frame(destination: str, rest: Packet, source: str = _CLIENT) -> bytes:
    # Both hardware addresses, or scapy would ask the network for them.
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return bytes(ether / IP(src=source, dst=destination) / rest)


def _query(name: str) -> bytes:
    return _frame(_RESOLVER, UDP(sport=4000, dport=53) / DNS(id=7, rd=1, qd=DNSQR(qname=name)))


def _reply(name: str, addresses: list[str]) -> bytes:
    # The owner is a pointer to the question, as servers write it.
    records = [DNSRR(rrname=b"\xc0\x0c", rdata=address, ttl=300) for address in addresses]
    message = DNS(id=7, qr=1, rd=1, ra=1, qd=DNSQR(qname=name), an=records)
    return _frame(_CLIENT, UDP(sport=53, dport=4000) / message, _RESOLVER)


def _nanoseconds(quick: bool) -> tuple[list[Figure], Rounds]:
    bench = Bench()
    try:
        taken = take_turns(bench.candidates(), _ROUNDS_QUICK if quick else _ROUNDS)
    finally:
        bench.close()
    medians = middle(taken)
    figures = []
    for name in medians:
        if name != _EMPTY:
            under = _EMPTY if name == _ESTABLISHED else _ESTABLISHED
            values = {under: medians[under], name: medians[name]}
            figures.append(Figure(f"{name} / {under}", ratios(taken, name, under), values, "ns"))
    return figures, taken


class Sender:
    """Datagrams from the client to the allowed registry's namespace, where nobody reads them."""

    def __init__(self, designs: Designs) -> None:
        self._designs = designs
        self._program = str(designs.directory / "sender")
        subprocess.run([programs.find("gcc"), "-O2", str(_SOURCE), "-o", self._program], check=True)
        node = designs.lab.allowed.node
        hole = node.popen([self._program, "hole", str(HOLE)])
        ports.wait_open(hole, node.namespace, HOLE, ("udp",), node.directory / "none")

    def open_addresses(self) -> int:
        """Has the addresses learned; the number of the first."""
        outcome = self._designs.race.run(_ADDRESSES, "ask-udp", cgroup=self._designs.cgroup(OURS))
        assert outcome.errors == {0: _ADDRESSES}, outcome
        return outcome.first

    def per_second(self, first: int, how: str, design: str) -> float:
        """Packets per second of the sender's CPU time."""
        addresses = [str(NETWORK[number]) for number in range(first, first + _ADDRESSES)]
        argv = [self._program, how, addresses[0], str(_ADDRESSES), str(HOLE), str(_SEND_SECONDS)]
        with self._designs.turn(design, addresses):
            finished = self._designs.node.run(argv, cgroup=self._designs.cgroup(design)).check()
        said = json.loads(finished.stdout)
        assert said["errors"] == 0, f"{design}, {how}: {said}"
        return float(said["packets"] / said["seconds"])


_WAYS = {"connected": "one connected socket", "unconnected": f"{_ADDRESSES} addresses in turn"}


def _packets(quick: bool) -> tuple[list[Figure], dict[str, Rounds]]:
    rounds = _SEND_ROUNDS_QUICK if quick else _SEND_ROUNDS
    figures: list[Figure] = []
    details: dict[str, Rounds] = {}
    with Designs() as designs:
        sender = Sender(designs)
        for how, title in _WAYS.items():
            # Once for each, as what was learned is forgotten after a while.
            first = sender.open_addresses()
            turns = {name: partial(sender.per_second, first, how, name) for name in (NONE, OURS, NFTSET)}
            taken = details[how] = take_turns(turns, rounds)
            figures += _compare(taken, title)
    return figures, details


def _compare(taken: Rounds, title: str) -> Iterator[Figure]:
    for name in (OURS, NFTSET):
        values = {key: value for key, value in middle(taken).items() if key in (NONE, name)}
        what = f"packets per CPU second, {title}, {name} / none"
        yield Figure(what, ratios(taken, name, NONE), values, "/s")


def measure(quick: bool) -> Part:
    """Nanoseconds, then packets."""
    nanoseconds, runs = _nanoseconds(quick)
    packets, sent = _packets(quick)
    part = Part("egress: what a packet costs (and a reply, on its way in)", [*nanoseconds, *packets])
    part.details = {"nanoseconds": runs, "packets_per_cpu_second": sent}
    part.notes = [f"{title}: {_added(sent[how])}" for how, title in _WAYS.items()]
    return part


def _added(taken: Rounds) -> str:
    """Nanoseconds that each design adds to a packet."""
    return ", ".join(
        f"{name} adds {statistics.median(1e9 / one[name] - 1e9 / one[NONE] for one in taken):.0f} ns a packet"
        for name in (OURS, NFTSET)
    )


if __name__ == "__main__":
    raise SystemExit(report.run({"egress": measure}))

"""The data plane without a network: packets go through the programs by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ram_ebpf.dataplane import abi, syscall
from ram_ebpf.dataplane.plane import NANOSECONDS, Plane, Settings, TrustedResolver
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import AddressRule, RuleSet, compile_rules

CLIENT, CLIENT6 = "10.0.0.2", "2001:db8::2"
RESOLVER, RESOLVER6 = "10.0.0.53", "2001:db8::53"

# What test runs do and tests must not inherit from each other.
_LIVE_MAPS = ("learned", "seeded", "queries", "unlisted", "inbound")

Openings = dict[tuple[str, int], tuple[float, int]]


def trusted(*addresses: str, port: int = 53, local: bool = True) -> list[TrustedResolver]:
    """Resolvers; local, since the packets of a test run are always on the loopback interface."""
    return [TrustedResolver(ipaddress.ip_address(address), port, local) for address in addresses]


def rules_of(registries: str) -> RuleSet:
    """The rules of a policy, of which only the list below `registries:` is given."""
    policy = parse_policy(f"version: 1\nregistries:\n{registries}".encode(), "policy.yaml")
    return compile_rules(policy, load_catalogue())


def ip(destination: str, source: str | None = None, **fields: Any) -> Packet:
    """An IPv4 or IPv6 header. Both addresses are given, or scapy would look for a route."""
    if ":" in destination:
        return IPv6(src=source or CLIENT6, dst=destination, **fields)
    return IP(src=source or CLIENT, dst=destination, **fields)


def frame(packet: Packet) -> bytes:
    """With an Ethernet header, with which test runs begin; again without asking the network for addresses."""
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


class Bench:
    """One loaded plane and what is needed to ask it: loading takes long, so tests share one and reset it."""

    def __init__(self, rules: RuleSet, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.resolvers = trusted(RESOLVER, RESOLVER6)
        self.plane = Plane(rules, self.settings, self.resolvers)
        self._counted: Counter[abi.Reason] = Counter()

    def reset(self) -> None:
        """Forgets what traffic left behind, and counts from here."""
        for name in _LIVE_MAPS:
            self.plane.maps[name].clear()
        self._counted = Counter(self.plane.counters())

    def egress(self, packet: Packet | bytes, repeat: int = 1) -> bool:
        """Whether the packet may leave."""
        return self._run("ram_egress", packet, repeat)

    def ingress(self, packet: Packet | bytes) -> bool:
        """Whether the packet may come in, which is always so."""
        return self._run("ram_ingress", packet, 1)

    def _run(self, program: str, packet: Packet | bytes, repeat: int) -> bool:
        data = packet if isinstance(packet, bytes) else frame(packet)
        result = syscall.program_test_run(self.plane.programs.fds[program], data, repeat)
        assert result.retval in (0, 1)
        return result.retval == 1

    def counted(self) -> dict[abi.Reason, int]:
        """How often each reason was given since this was asked last, or since reset()."""
        now = Counter(self.plane.counters())
        delta = now - self._counted
        self._counted = now
        return dict(delta)

    @contextmanager
    def configured(self, settings: Settings) -> Iterator[None]:
        """Other settings for a while."""
        self.plane.configure(settings)
        try:
            yield
        finally:
            self.plane.configure(self.settings)

    @contextmanager
    def trusting(self, resolvers: Iterable[TrustedResolver]) -> Iterator[None]:
        """Other resolvers for a while."""
        self.plane.trust(resolvers)
        try:
            yield
        finally:
            self.plane.trust(self.resolvers)

    def learned(self) -> Openings:
        """(address, port) to the seconds left and the number of the rule; port 0 only tells the address."""
        now = time.monotonic_ns()
        openings = {}
        for raw_key, raw_value in self.plane.maps["learned"].items():
            key = abi.Endpoint.from_buffer_copy(raw_key)
            value = abi.Opening.from_buffer_copy(raw_value)
            assert (key.zero, value.zero) == (0, 0)
            address = str(abi.unpack_address(bytes(key.address)))
            openings[address, key.port] = ((value.expires_ns - now) / NANOSECONDS, value.rule)
        return openings

    def open(self, table: str, address: str, ports: Iterable[int], seconds: float, rule: int = 1) -> None:
        """Opens an address for so many seconds (negative: until then) in `learned` or `seeded`."""
        # A guest that has just booted has not been up for long enough to count back from.
        expires = max(time.monotonic_ns() + int(seconds * NANOSECONDS), 0)
        for port in (*ports, abi.PORT_ANY):
            key = abi.endpoint(ipaddress.ip_address(address), port)
            self.plane.maps[table][key] = bytes(abi.Opening(expires, rule, 0))

    def queries(self, table: str = "queries") -> list[abi.Query]:
        """The outstanding queries for listed names, or those in `unlisted`."""
        return [abi.Query.from_buffer_copy(value) for _, value in self.plane.maps[table].items()]

    def pattern_of(self, number: int) -> str:
        """The pattern, or network, of a rule that the kernel named."""
        rule = self.plane.tables.rule(number)
        assert rule is not None, f"there is no rule {number}"
        return str(rule.network if isinstance(rule, AddressRule) else rule.pattern)

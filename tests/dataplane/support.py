"""The data plane without a network: packets go through the programs by BPF_PROG_TEST_RUN."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from ram_ebpf.dataplane import abi, clock, syscall
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.scope_maps import ESTABLISHED
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import AddressRule, FoundRule, RuleSet, compile_rules

CLIENT, CLIENT6 = "10.0.0.2", "2001:db8::2"
RESOLVER, RESOLVER6 = "10.0.0.53", "2001:db8::53"

# What test runs do and tests must not inherit from each other, beside the maps of the scopes.
_LIVE_MAPS = ("seeded", "asked", "witnessed", "walks", "resolver_sockets", "encrypted_resolvers")

# Packets of a test run are always on the loopback interface, which is not to be told from others then.
SETTINGS = Settings(loopback=0)

# include/uapi/linux/pkt_cls.h: TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT.
_UNSPEC, _SHOT, _REDIRECT = 0xFFFFFFFF, 2, 7

Openings = dict[tuple[str, int], tuple[float, int]]


def trusted(*addresses: str, port: int = 53, local: bool = False) -> list[TrustedResolver]:
    """Resolvers."""
    return [TrustedResolver(ipaddress.ip_address(address), port, local) for address in addresses]


def rules_of(registries: str, denied: str = "", recognising: bool = False) -> RuleSet:
    """The rules of a policy, of which only the lists below `registries:` and `denied:` are given."""
    text = f"version: 1\nregistries:\n{registries}"
    if denied:
        text += f"\ndenied:\n{denied}"
    return compile_rules(parse_policy(text.encode(), "policy.yaml"), load_catalogue(), recognising)


def ip(destination: str, source: str | None = None, **fields: Any) -> Packet:
    """An IPv4 or IPv6 header. Both addresses are given, or scapy would look for a route."""
    if ":" in destination:
        return IPv6(src=source or CLIENT6, dst=destination, **fields)
    return IP(src=source or CLIENT, dst=destination, **fields)


def frame(packet: Packet) -> bytes:
    """With an Ethernet header, with which test runs begin; again without asking the network for addresses."""
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)


class Bench:
    """One loaded plane and what is needed to ask it: loading takes long, so tests share one and reset it.

    Packets enter by the programs that are attached to a scope, and go the whole way of tail calls from
    there. Where no scope is named, it is the first one. With `device` they are those of a device instead of
    a cgroup's.
    """

    def __init__(
        self,
        rules: RuleSet,
        settings: Settings | None = None,
        multipliers: tuple[int, ...] | None = None,
        posture: abi.Posture = abi.Posture.STRICT,
    ) -> None:
        self.settings = replace(settings or SETTINGS, loopback=0)
        self.resolvers = trusted(RESOLVER, RESOLVER6)
        self.plane = Plane(rules, self.settings, self.resolvers, multipliers=multipliers, posture=posture)
        self.scope = self.plane.open_scope()
        self._scopes = [self.scope]
        self._counted: Counter[abi.Reason] = Counter()
        self.device: abi.PlaceFlag | None = None

    @cached_property
    def other(self) -> Scope:
        """A second scope, for what is to be apart from the first one."""
        scope = self.plane.open_scope()
        self._scopes.append(scope)
        return scope

    def map(self, name: str, scope: Scope | None = None) -> Map:
        """A map of all scopes, or of one."""
        maps = (scope or self.scope).maps
        return maps[name] if name in maps.maps else self.plane.maps[name]

    def reset(self) -> None:
        """Forgets what traffic left behind, and counts from here."""
        for name in _LIVE_MAPS:
            self.plane.maps[name].clear()
        for scope in self._scopes:
            for item in scope.maps.maps.values():
                item.clear()
            if self.device is not None:
                scope.programs_for(self.device)  # now, as it takes longer than a reply would wait
        self.plane.show_alive()
        self._counted = Counter(self.plane.counters())

    def egress(self, packet: Packet | bytes, repeat: int = 1, scope: Scope | None = None) -> bool:
        """Whether the packet may leave."""
        return self._enter("egress", packet, scope, repeat)

    def ingress(self, packet: Packet | bytes, scope: Scope | None = None) -> bool:
        """Whether the packet may come in now, which only DNS over TCP sometimes may not."""
        return self._enter("ingress", packet, scope)

    def _enter(self, way: str, packet: Packet | bytes, scope: Scope | None = None, repeat: int = 1) -> bool:
        chosen = scope or self.scope
        if self.device is None:
            label = {"egress": "out", "ingress": "in"}[way]
            return self._run(chosen.programs.fds[label], packet, repeat)
        name = {"egress": "d_out", "ingress": "d_in"}[way]
        data = packet if isinstance(packet, bytes) else frame(packet)
        program = chosen.programs_for(self.device).fds[name]
        for _ in range(repeat):  # one by one: what is refused is another packet afterwards
            retval = syscall.program_test_run(program, data).retval
            assert retval in (_UNSPEC, _SHOT, _REDIRECT)
        return retval == _UNSPEC

    def forget_connections(self) -> None:
        """Those that devices know; a cgroup's lie with sockets, which test runs have not."""
        if self.device is not None:
            self.map(ESTABLISHED).clear()

    def witness(self, packet: Packet | bytes) -> None:
        """What a resolver on this host sends, on its own egress."""
        assert self._run(self.plane.shared.fds["wit"], packet)

    def _run(self, program: int, packet: Packet | bytes, repeat: int = 1) -> bool:
        data = packet if isinstance(packet, bytes) else frame(packet)
        result = syscall.program_test_run(program, data, repeat)
        assert result.retval in (0, 1)
        return result.retval == 1

    def counted(self) -> dict[abi.Reason, int]:
        """How often each reason was given since this was asked last, or since reset()."""
        now = Counter(self.plane.counters())
        delta = now - self._counted
        self._counted = now
        return dict(delta)

    @contextmanager
    def configured(self, settings: Settings, loopback: int = 0) -> Iterator[None]:
        """Other settings for a while. `loopback`: the number of the interface that counts as that one."""
        self.plane.configure(replace(settings, loopback=loopback))
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

    def openings(
        self, table: str = "learned", scope: Scope | None = None
    ) -> dict[tuple[str, tuple[int, ...]], abi.Opening]:
        """(address, ports) to what the kernel keeps, that which opens nothing included."""
        lists = self.plane.tables.rules.port_lists()
        found = {}
        for raw_key, raw_value in self.map(table, scope).items():
            key = abi.OpeningKey.from_buffer_copy(raw_key)
            address = str(abi.unpack_address(bytes(key.address)))
            found[address, lists[key.port_list]] = abi.Opening.from_buffer_copy(raw_value)
        return found

    def learned(self, scope: Scope | None = None) -> Openings:
        """(address, port) to the seconds left and the number of the rule, of what is open."""
        now = clock.now_ns()
        return {
            (address, port): ((opening.expires_ns - now) / NANOSECONDS, opening.rule)
            for (address, ports), opening in self.openings(scope=scope).items()
            for port in ports
            if not opening.flags
        }

    def refused(self) -> set[str]:
        """Addresses that were answered and are not open, as they are private."""
        return {address for (address, _), opening in self.openings().items() if opening.flags}

    def open(
        self, table: str, address: str, ports: tuple[int, ...], seconds: float, rule: int = 1, flags: int = 0
    ) -> None:
        """Opens an address for so many seconds (negative: until then) in `learned` or `seeded`."""
        # A guest that has just booted has not been up for long enough to count back from.
        expires = max(clock.now_ns() + int(seconds * NANOSECONDS), 1)
        key = abi.opening_key(
            ipaddress.ip_address(address), self.plane.tables.rules.port_lists().index(tuple(ports))
        )
        self.map(table)[key] = bytes(abi.Opening(expires, rule, flags))

    def queries(self, table: str = "queries", scope: Scope | None = None) -> list[abi.Query]:
        """The outstanding queries for listed names, or those in `unlisted`."""
        return [abi.Query.from_buffer_copy(value) for _, value in self.map(table, scope).items()]

    def alter_query(self, **fields: int) -> None:
        """Writes other values into the one outstanding query for a listed name."""
        ((key, value),) = self.map("queries").items()
        query = abi.Query.from_buffer_copy(value)
        for name, number in fields.items():
            setattr(query, name, number)
        self.map("queries")[key] = bytes(query)

    def aliases(self, scope: Scope | None = None) -> list[abi.Alias]:
        """The names that are remembered as alias targets."""
        return [abi.Alias.from_buffer_copy(value) for _, value in self.map("aliases", scope).items()]

    def pattern_of(self, number: int) -> str:
        """The pattern, or network, of a rule that the kernel named."""
        rule = self.plane.tables.rule(number)
        assert rule is not None, f"there is no rule {number}"
        assert not isinstance(rule, FoundRule)
        return str(rule.network if isinstance(rule, AddressRule) else rule.pattern)

    def rule_of(self, pattern: str) -> int:
        """The number of the rule with this pattern."""
        (found,) = [rule.rank for rule in self.plane.tables.rules.names if rule.pattern.text == pattern]
        return found

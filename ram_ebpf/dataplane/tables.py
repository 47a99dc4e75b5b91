"""From rules to the contents of the maps. Pure: nothing here touches the kernel.

Rules are numbered from 1 by their rank, so of several that match a name the greatest number is the most
specific. Address rules follow behind the name rules.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.namehash import NameHasher
from ram_ebpf.policy.automaton import NO_PATTERN, START, GlobAutomaton, compile_globs
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.rules import AddressRule, NameRule, RuleSet

Pairs = Iterator[tuple[bytes, bytes]]

_IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

_EXACT, _ONE, _DEEP = range(3)
_KIND_SLOT = {PatternKind.EXACT: _EXACT, PatternKind.ONE: _ONE, PatternKind.DEEP: _DEEP}


@dataclass(frozen=True)
class Tables:
    """The contents of the maps that the policy decides, under one secret."""

    rules: RuleSet
    multipliers: tuple[int, ...]

    @cached_property
    def _numbered(self) -> dict[int, NameRule | AddressRule]:
        numbered: dict[int, NameRule | AddressRule] = {rule.rank: rule for rule in self.rules.names}
        first = len(self.rules.names) + 1
        numbered.update(enumerate(self.rules.addresses, start=first))
        return numbered

    def rule(self, number: int) -> NameRule | AddressRule | None:
        """The rule of a number that the kernel gave; None for 0."""
        return self._numbered.get(number)

    @cached_property
    def automaton(self) -> GlobAutomaton:
        """For the patterns that a hash of literal suffixes cannot decide."""
        return compile_globs([(rule.pattern, rule.rank) for rule in self.rules.of_kind(PatternKind.GLOB)])

    @property
    def automaton_start(self) -> int:
        """The automaton's first state, or 0 when there is no such pattern."""
        return START if len(self.automaton.states) > START else 0

    @cached_property
    def _suffixes(self) -> dict[str, list[int]]:
        suffixes: dict[str, list[int]] = {}
        for rule in self.rules.names:
            slot = _KIND_SLOT.get(rule.pattern.kind)
            if slot is not None:
                text = rule.pattern.text if slot == _EXACT else rule.pattern.suffix
                suffixes.setdefault(text, [0, 0, 0])[slot] = rule.rank
        return suffixes

    def entries(self) -> dict[str, int]:
        """max_entries of each map whose size the policy decides."""
        return {
            "names": max(len(self._suffixes), 1),
            "automaton": max(len(self.automaton.states), 1),
            "rules": len(self._numbered) + 1,
            # Entries are allocated as they come, but the kernel makes a bucket (16 bytes) for each at once.
            "seeded": max(65536, 4 * len(self.rules.exact_names())),
            "ranges": max(len(self._ranges), 1),
        }

    def names(self) -> Pairs:
        """struct ram_suffix_key to struct ram_suffix."""
        hasher = NameHasher(self.multipliers)
        for text, slots in self._suffixes.items():
            yield hasher.key(text.split(".")), struct.pack("=3I", *slots)

    def states(self) -> Pairs:
        """Index to struct ram_state."""
        for index, state in enumerate(self.automaton.states):
            accept = 0 if state.accept == NO_PATTERN else state.accept
            yield struct.pack("=I", index), bytes(abi.State(accept, state.next))

    def rule_entries(self) -> Pairs:
        """Rule number to struct ram_rule."""
        for number, rule in self._numbered.items():
            yield struct.pack("=I", number), pack_rule(rule.ports)

    @cached_property
    def _ranges(self) -> dict[bytes, int]:
        ranges: dict[bytes, int] = {}
        for number, rule in self._numbered.items():
            if isinstance(rule, AddressRule):
                for port in rule.ports:
                    ranges.setdefault(abi.range_key(rule.network, port), number)
        for rule in self.rules.addresses:
            if rule.network.version == 6 and _IPV4_MAPPED.subnet_of(rule.network):
                for port in rule.ports:
                    ranges.setdefault(abi.range_key(_IPV4_MAPPED, port), 0)
        return ranges

    def ranges(self) -> Pairs:
        """struct ram_range_key to struct ram_range. Of rules for the same range and port the first stays.

        IPv4 lives in the map as ::ffff:0:0/96, so an IPv6 range around that gets a hole there.
        """
        for key, number in self._ranges.items():
            yield key, struct.pack("=I", number)


def pack_rule(ports: Sequence[int]) -> bytes:
    """struct ram_rule. Raises ValueError for more ports than it has room for."""
    if len(ports) > abi.PORTS_MAX:
        raise ValueError(f"a rule has room for {abi.PORTS_MAX} ports, not {len(ports)}")
    padded = (*ports, *(0,) * (abi.PORTS_MAX - len(ports)))
    return bytes(abi.Rule(padded, len(ports)))

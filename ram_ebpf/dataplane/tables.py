"""From rules to the contents of the maps. Pure: nothing here touches the kernel.

Rules are numbered from 1 by their rank, so of several that match a name the greatest number is the most
specific. Address rules follow behind the name rules.
"""

from __future__ import annotations

import bisect
import hashlib
import ipaddress
import itertools
import struct
from array import array
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.namehash import NameHasher
from ram_ebpf.policy.automaton import NO_PATTERN, START, GlobAutomaton, compile_globs
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.ruleset import AddressRule, FoundRule, NameRule, RuleSet

Pairs = Iterator[tuple[bytes, bytes]]
Rule = NameRule | AddressRule | FoundRule

_IPV4_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

SPARE_IDENTITIES = 16384
"""Rules that a policy has no more, whose connections stay."""


def identity_of(rule: Rule) -> int:
    """A number that a rule has in every policy that has it, in all instances; never 0.

    The ports may differ. Two rules with one number would take 2^32 of them (RFC 7693: BLAKE2b).
    """
    if isinstance(rule, NameRule):
        return _identity_of_name(rule, rule.pattern.text)
    if isinstance(rule, AddressRule):
        return _hashed(f"{'proxy' if rule.proxy else 'address'} {rule.network}")
    return _hashed(f"found {rule.port}")


def _identity_of_name(like: NameRule, pattern: str) -> int:
    return _hashed(f"{'denied' if like.deny else 'proxy' if like.proxy else 'name'} {pattern}")


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") or 1


def refused_list(port: int | None) -> int:
    """In the place of a list of ports: that an address is refused on one, or on all of them."""
    return abi.RefusedList.ALL if port is None else abi.RefusedList.ON + port


@dataclass(frozen=True)
class Tables:
    """The contents of the maps that the policy decides, under one secret."""

    rules: RuleSet
    multipliers: tuple[int, ...]
    asked_ports: tuple[int, ...] = ()
    """On which registries are found by asking: there is a rule for each, and one for several of them."""

    @property
    def count(self) -> int:
        """How many rules there are; their numbers are 1 to that."""
        return len(self.rules.names) + len(self._others)

    @cached_property
    def _others(self) -> tuple[AddressRule | FoundRule, ...]:
        """Those behind the name rules."""
        found = (*(FoundRule(port) for port in self.asked_ports), FoundRule(None)) if self.asked_ports else ()
        return (*self.rules.addresses, *found)

    def number_of_found(self, ports: Set[int]) -> int:
        """The rule of names at which there is a registry on one of `asked_ports`, or on several of them."""
        wanted = FoundRule(next(iter(ports)) if len(ports) == 1 else None)
        return len(self.rules.names) + 1 + self._others.index(wanted)

    def rule(self, number: int) -> Rule | None:
        """The rule of a number that the kernel gave; None for 0."""
        if not 0 < number <= self.count:
            return None
        names = len(self.rules.names)
        return self.rules.names[number - 1] if number <= names else self._others[number - names - 1]

    @cached_property
    def automaton(self) -> GlobAutomaton:
        """For the patterns that a hash of literal suffixes cannot decide."""
        return compile_globs([(rule.pattern, rule.rank) for rule in self.rules.of_kind(PatternKind.GLOB)])

    @property
    def automaton_start(self) -> int:
        """The automaton's first state, or 0 when there is no such pattern."""
        return START if len(self.automaton.states) > START else 0

    @cached_property
    def suffix_depths(self) -> int:
        """How many labels the entries of `names` have: struct ram_config's bits."""
        depths = 0xFFFFFFFF if self.asked_ports else 0  # what is found may be anywhere
        for text, _ in self.rules.names.suffixes():
            depths |= 1 << min(text.count(".") + 1, 31)
        return depths

    def entries(self) -> dict[str, int]:
        """max_entries of each map whose size the policy decides."""
        return {
            "names": max(self.rules.names.count_suffixes(), 1),
            "automaton": max(len(self.automaton.states), 1),
            "rules": self.count + 1,
            "live": self.count + SPARE_IDENTITIES,
            # Entries are allocated as they come, but the kernel makes a bucket (16 bytes) for each at once.
            "seeded": max(65536, 4 * self.rules.count_exact()),
            "ranges": max(len(self._ranges), 1),
            "private_ranges": max(len(self._private_ranges), 1),
            "ports": max(len(self._lists_of_port), 1),
        }

    def names(self) -> Pairs:
        """struct ram_suffix_key to struct ram_suffix."""
        hasher = NameHasher(self.multipliers)
        for text, slots in self.rules.names.suffixes():
            yield hasher.key(text.split(".")), struct.pack("=3I", *slots)

    def key_of(self, name: str) -> bytes:
        """struct ram_suffix_key of one name, in lower case."""
        return NameHasher(self.multipliers).key(name.split("."))

    def states(self) -> Pairs:
        """Index to struct ram_state."""
        for index, state in enumerate(self.automaton.states):
            accept = 0 if state.accept == NO_PATTERN else state.accept
            yield struct.pack("=I", index), bytes(abi.State(accept, state.next))

    @cached_property
    def _port_list(self) -> dict[tuple[int, ...], int]:
        return {ports: number for number, ports in enumerate(self.rules.port_lists())}

    @property
    def port_lists(self) -> int:
        """How many different lists of ports the name rules have."""
        return len(self._port_list)

    def port_list_of(self, rule: NameRule) -> int:
        """The number of the rule's list of ports."""
        return self._port_list[rule.ports]

    @cached_property
    def _lists_of_port(self) -> dict[int, int]:
        lists: dict[int, int] = {}
        for ports, number in self._port_list.items():
            for port in ports:
                lists[port] = lists.get(port, 0) | 1 << number
        return lists

    def ports(self) -> Pairs:
        """Port to the lists that it is in, a bit for each."""
        for port, lists in self._lists_of_port.items():
            yield struct.pack("=I", port), struct.pack("=Q", lists)

    def _identities(self) -> Iterator[int]:
        """Of each rule, by number from 1."""
        names = (_identity_of_name(like, text) for like, text in self.rules.names.likes())
        return itertools.chain(names, map(identity_of, self._others))

    @cached_property
    def _by_identity(self) -> tuple[array[int], array[int]]:
        """Identities, ascending, and the numbers of their rules: for who takes over from another policy."""
        identities = array("Q", self._identities())
        order = array("I", sorted(range(len(identities)), key=identities.__getitem__))
        return array("Q", map(identities.__getitem__, order)), array("I", (index + 1 for index in order))

    def number_of(self, identity: int) -> int:
        """Of the rule with an identity; 0 when there is none."""
        identities, numbers = self._by_identity
        place = bisect.bisect_left(identities, identity)
        return numbers[place] if place < len(identities) and identities[place] == identity else 0

    def rule_entries(self) -> Pairs:
        """Rule number to struct ram_rule."""
        said = {id(like): self._list_and_flags(like) for like in self.rules.names.common()}
        names = (said[id(like)] for like, _ in self.rules.names.likes())
        every = itertools.chain(names, map(self._list_and_flags_of_other, self._others))
        for number, (one, identity) in enumerate(zip(every, self._identities(), strict=True), start=1):
            yield struct.pack("=I", number), struct.pack("=IIQ", *one, identity)

    @staticmethod
    def _list_and_flags_of_other(rule: AddressRule | FoundRule) -> tuple[int, int]:
        if isinstance(rule, AddressRule):
            return 0, abi.RuleFlag.ADDRESS | (abi.RuleFlag.PROXY if rule.proxy else 0)
        return refused_list(rule.port), abi.RuleFlag.DENY | abi.RuleFlag.PRIVATE

    def live(self) -> Pairs:
        """The identity of each rule to its number."""
        for number, identity in enumerate(self._identities(), start=1):
            yield struct.pack("=Q", identity), struct.pack("=I", number)

    def _list_and_flags(self, rule: NameRule) -> tuple[int, int]:
        if rule.deny:
            # Whichever address it has, private ones included.
            return refused_list(None), abi.RuleFlag.DENY | abi.RuleFlag.PRIVATE
        flags = abi.RuleFlag(0)
        if rule.private:
            flags |= abi.RuleFlag.PRIVATE
        if rule.private_networks:
            flags |= abi.RuleFlag.PRIVATE_RANGES
        if rule.unnamed:
            flags |= abi.RuleFlag.UNNAMED
        if rule.proxy:
            flags |= abi.RuleFlag.PROXY
        return self.port_list_of(rule), flags

    @cached_property
    def _private_ranges(self) -> dict[bytes, int]:
        ranges: dict[bytes, int] = {}
        if not any(rule.private_networks for rule in self.rules.names.common()):
            return ranges
        for rule in self.rules.names:
            for network in rule.private_networks:
                ranges[abi.range_key(network, rule.rank)] = rule.rank
            for network in rule.private_networks:
                if network.version == 6 and _IPV4_MAPPED.subnet_of(network):
                    ranges.setdefault(abi.range_key(_IPV4_MAPPED, rule.rank), 0)
        return ranges

    def private_ranges(self) -> Pairs:
        """struct ram_range_key, with the rule for the port, to struct ram_range; holes as in ranges()."""
        for key, number in self._private_ranges.items():
            yield key, struct.pack("=I", number)

    @cached_property
    def _ranges(self) -> dict[bytes, int]:
        ranges: dict[bytes, int] = {}
        for number, rule in enumerate(self._others, start=len(self.rules.names) + 1):
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

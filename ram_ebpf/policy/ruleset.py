"""The rules of a policy, as many as there may be in little memory: what the daemon keeps of its policy.

A rule is an object only while somebody looks at it. 100 000 of them would take 60 MB; here they take 7. Names
lie in a row in one string of bytes, found by a table of hashes; what many rules have in common is kept once.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from typing import NamedTuple, overload

from ram_ebpf.policy.choices import ALL_ACTIONS, Action, IPNetwork
from ram_ebpf.policy.names import HostPattern, PatternKind, normalise


@dataclass(frozen=True, slots=True)
class NameRule:
    """Names that are allowed on some TCP and UDP ports, or denied."""

    pattern: HostPattern
    ports: tuple[int, ...]
    """Ascending, 1 to 8 of them; none when `deny`."""
    origin: str
    """Catalogue ids and places in the policy, such as `docker-hub` or `policy.yaml:12`, with commas."""
    shared: bool
    """Many tenants answer at its addresses, so the name on the wire must be checked too."""
    private: bool
    """The administrator expects any private address for it."""
    rank: int
    """From 1, unique: of the rules that match a name, the one with the greatest rank decides."""
    roles: tuple[str, ...] = ()
    """What the catalogue says that the host is for: `api`, `auth`, `blobs`."""
    deny: bool = False
    """Names that it decides are denied."""
    private_networks: tuple[IPNetwork, ...] = ()
    """Where the administrator expects private addresses for it: distinct, IPv4 first, ascending; none when
    `private`."""
    known: bool = False
    """With `deny`: of a registry of the catalogue that the policy says nothing about."""
    actions: tuple[Action, ...] = ALL_ACTIONS
    """What may be done there, as far as an engine says it. None when `deny`."""
    unnamed: bool = False
    """A TLS connection to its addresses may leave its name out."""
    proxy: bool = False
    """A proxy's: what it is asked for must be allowed. No image is there, so it has no `actions`."""

    def __str__(self) -> str:
        return f"{self.pattern.text} ({self.origin})"


@dataclass(frozen=True, slots=True)
class AddressRule:
    """Addresses that are allowed without a name."""

    network: IPNetwork
    ports: tuple[int, ...]
    origin: str
    actions: tuple[Action, ...] = ALL_ACTIONS
    proxy: bool = False
    """As of a NameRule."""

    def __str__(self) -> str:
        return f"{self.network} ({self.origin})"


class FoundRule(NamedTuple):
    """Names at which a registry was found by asking: on one port, or on several (None)."""

    port: int | None

    def __str__(self) -> str:
        return "found by asking it"


_ALIKE = attrgetter(
    *(item.name for item in fields(NameRule) if item.name not in ("pattern", "rank", "origin"))
)
_EXACT, _ONE, _DEEP = range(3)
_SLOT = {PatternKind.EXACT: _EXACT, PatternKind.ONE: _ONE, PatternKind.DEEP: _DEEP}
_WILDCARD = (0, len("*."), len("**."))  # characters in front of the suffix
_LONGEST_LINE = 9  # digits

Ranks = tuple[int, int, int]
"""Of the rules of one literal suffix: the exact one, that of one label more, of any number; 0 for none."""


class NameRules(Sequence[NameRule]):
    """Name rules by ascending rank, which counts from 1 without a gap. No two have the same pattern."""

    def __init__(self, rules: Iterable[NameRule] = ()) -> None:
        self._ends = array("I", [0])  # in `_texts`, of the rule before and of each rule
        self._likes = array("I")  # which of `_common` each is like, but for what differs nearly always
        self._lines = array("I")  # with which its origin ends; 0: with none
        texts: list[bytes] = []
        common: dict[tuple[object, ...], int] = {}
        likes: list[tuple[NameRule, PatternKind]] = []
        suffixes: dict[bytes, int] = {}
        self._slots = array("I")  # Ranks of each suffix, one behind the other
        length = 0
        for rank, rule in enumerate(rules, start=1):
            if rule.rank != rank:
                raise ValueError(f"rule {rule} has rank {rule.rank} in the place of rank {rank}")
            text = rule.pattern.text.encode("ascii")
            texts.append(text)
            length += len(text)
            self._ends.append(length)
            file, colon, digits = rule.origin.rpartition(":")
            has_line = colon and digits.isdecimal() and len(digits) <= _LONGEST_LINE and digits[0] != "0"
            self._lines.append(int(digits) if has_line else 0)
            origin = file + colon if has_line else rule.origin
            kind = rule.pattern.kind
            key = (origin, kind.value, *_ALIKE(rule))
            like = common.setdefault(key, len(likes))
            if like == len(likes):
                likes.append((replace(rule, origin=origin), kind))
            self._likes.append(like)
            slot = _SLOT.get(kind)
            if slot is not None:
                place = suffixes.setdefault(text[_WILDCARD[slot] :], len(self._slots))
                if place == len(self._slots):
                    self._slots.extend((0, 0, 0))
                self._slots[place + slot] = rank
        self._texts = b"".join(texts)
        self._common = tuple(likes)
        self._places = _hashed(suffixes)

    def __len__(self) -> int:
        return len(self._likes)

    @overload
    def __getitem__(self, index: int) -> NameRule: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[NameRule, ...]: ...

    def __getitem__(self, index: int | slice) -> NameRule | tuple[NameRule, ...]:
        if isinstance(index, slice):
            return tuple(self._rule(i) for i in range(*index.indices(len(self))))
        size = len(self)
        if not -size <= index < size:
            raise IndexError(index)
        return self._rule(index % size)

    def __iter__(self) -> Iterator[NameRule]:
        return map(self._rule, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NameRules) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def _text(self, index: int) -> bytes:
        return self._texts[self._ends[index] : self._ends[index + 1]]

    def _rule(self, index: int) -> NameRule:
        like, kind = self._common[self._likes[index]]
        text = self._text(index).decode("ascii")
        line = self._lines[index]
        return NameRule(
            HostPattern(text, tuple(text.split(".")), kind),
            like.ports,
            f"{like.origin}{line}" if line else like.origin,
            like.shared,
            like.private,
            index + 1,
            like.roles,
            like.deny,
            like.private_networks,
            like.known,
            like.actions,
            like.unnamed,
            like.proxy,
        )

    def _suffix_at(self, place: int) -> bytes:
        slots = self._slots[place : place + 3]
        slot = next(slot for slot in (_EXACT, _ONE, _DEEP) if slots[slot])
        return self._text(slots[slot] - 1)[_WILDCARD[slot] :]

    def ranks_of(self, suffix: str) -> Ranks:
        """Of the rules of a literal suffix in lower case, given without its wildcard."""
        text = suffix.encode("ascii")
        mask = len(self._places) - 1
        at = zlib.crc32(text) & mask
        while found := self._places[at]:
            if self._suffix_at(found - 1) == text:
                return self._slots[found - 1], self._slots[found], self._slots[found + 1]
            at = at + 1 & mask
        return 0, 0, 0

    def suffixes(self) -> Iterator[tuple[str, Ranks]]:
        """Each literal suffix once, with the ranks of its rules."""
        slots = self._slots
        for place in range(0, len(slots), 3):
            ranks = (slots[place], slots[place + 1], slots[place + 2])
            yield self._suffix_at(place).decode("ascii"), ranks

    def count_suffixes(self) -> int:
        """How many of these there are."""
        return len(self._slots) // 3

    def likes(self) -> Iterator[tuple[NameRule, str]]:
        """For each rule one that differs in pattern, rank and line alone, and its own pattern's text.

        Making a rule of each takes ten times as long.
        """
        common = [like for like, _ in self._common]
        for index, like in enumerate(self._likes):
            yield common[like], self._text(index).decode("ascii")

    def common(self) -> Iterator[NameRule]:
        """What likes() gives, each once, by ascending rank of the first rule that is like it: there are few.

        Its pattern's kind and its rank are those of that rule.
        """
        return (like for like, _ in self._common)


def _hashed(suffixes: Mapping[bytes, int]) -> array[int]:
    """Places in `_slots`, and 1, by the suffix's CRC-32, or the next free place behind it (open addressing).

    At most half full. The hash is no secret: who writes the policy may slow down nobody but this host.
    """
    places = array("I", [0]) * (1 << max(2 * len(suffixes), 1).bit_length())
    mask = len(places) - 1
    for text, place in suffixes.items():
        at = zlib.crc32(text) & mask
        while places[at]:
            at = at + 1 & mask
        places[at] = place + 1
    return places


class RuleSet:
    """All rules of a policy; `names` are by ascending rank, `addresses` in the policy's order. No two rules
    of `names` have the same pattern. It does not change."""

    def __init__(self, names: Iterable[NameRule], addresses: Iterable[AddressRule]) -> None:
        self.names = names if isinstance(names, NameRules) else NameRules(names)
        self.addresses = tuple(addresses)
        self._globs = tuple(self.of_kind(PatternKind.GLOB))
        self._port_lists = tuple(dict.fromkeys(rule.ports for rule in self.names.common() if not rule.deny))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RuleSet) and self.names == other.names and self.addresses == other.addresses

    __hash__ = None  # type: ignore[assignment]

    def match(self, name: str) -> NameRule | None:
        """The rule, perhaps a deny rule, that decides a presentation name; None when none matches."""
        canonical = normalise(name)
        if canonical is None:
            return None
        rank, _, _ = self.names.ranks_of(canonical)
        exact = self.names[rank - 1] if rank else None
        if exact and not exact.known:  # it beats all
            return exact
        labels = canonical.split(".")
        suffix = canonical
        for number in range(1, len(labels)):
            suffix = suffix.partition(".")[2]
            _, one, deep = self.names.ranks_of(suffix)
            rank = max(rank, deep, one if number == 1 else 0)
        globs = (rule.rank for rule in self._globs if rule.pattern.matches_labels(labels))
        rank = max(rank, max(globs, default=0))
        return self.names[rank - 1] if rank else None

    def allows(self, name: str) -> NameRule | None:
        """The rule that allows a registry's presentation name, or None: nothing allows it, or a rule denies
        it, or it is a proxy's."""
        rule = self.match(name)
        return None if rule is None or rule.deny or rule.proxy else rule

    def exact_names(self) -> tuple[str, ...]:
        """The allowed names that can be looked up before anybody asks for them, in lower case."""
        exact = PatternKind.EXACT
        return tuple(
            text for like, text in self.names.likes() if like.pattern.kind is exact and not like.deny
        )

    def count_exact(self) -> int:
        """How many rules have an exact name, deny rules included."""
        return sum(1 for like, _ in self.names.likes() if like.pattern.kind is PatternKind.EXACT)

    def of_kind(self, kind: PatternKind) -> Iterator[NameRule]:
        """The name rules of one kind, by ascending rank, deny rules included: whoever finds the deciding
        rule needs both."""
        if all(like.pattern.kind is not kind for like in self.names.common()):
            return iter(())
        likes = enumerate(self.names.likes())
        return (self.names[index] for index, (like, _) in likes if like.pattern.kind is kind)

    def port_lists(self) -> tuple[tuple[int, ...], ...]:
        """The different lists of ports of the allowed names, by the rank of the first rule that has each.
        Their number is at most MAX_PORT_LISTS after compile_rules."""
        return self._port_lists

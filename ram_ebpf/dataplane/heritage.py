"""What a scope takes over from one that was in its place: of an earlier policy, or of an instance that died.

Connections under way are kept in the very same maps, so that the older and the newer programs know of each
other's while both are attached. What says by number which rule allowed it, in which list of ports, is copied,
with the numbers of the newer policy; what that has no rule for is left behind.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.openings import is_refused_as_private
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.ruleset import NameRule

KEPT = ("inbound", "held", "released", "beginnings", "established")
"""Maps of a scope that have nothing of a policy in them, or know it by more than a number."""


@dataclass(frozen=True)
class Translation:
    """Of what an older view wrote into what a newer one reads."""

    identity_of: Callable[[int], int | None]
    """Of the older one's rules, by number; see tables.identity_of()."""
    tables: Tables

    def number(self, old: int) -> int:
        """Of the same rule now; 0 when there is none."""
        identity = self.identity_of(old) if old else None
        return 0 if identity is None else self.tables.number_of(identity)

    def opening(self, key: bytes, value: bytes) -> tuple[bytes, bytes] | None:
        """struct ram_opening_key and struct ram_opening, or None: it opens and refuses nothing any more."""
        place, item = abi.OpeningKey.from_buffer_copy(key), abi.Opening.from_buffer_copy(value)
        number = self.number(item.rule)
        rule = self.tables.rule(number)
        if rule is None:
            return None
        if isinstance(rule, NameRule) and not rule.deny:
            place.port_list = self.tables.port_list_of(rule)
            is_shut = is_refused_as_private(abi.unpack_address(bytes(place.address)), rule)
            item.flags = abi.OpeningFlag.PRIVATE if is_shut else 0
        item.rule = number
        return bytes(place), bytes(item)

    def alias(self, key: bytes, value: bytes) -> tuple[bytes, bytes] | None:
        """The identity of a name and struct ram_alias, or None."""
        item = abi.Alias.from_buffer_copy(value)
        item.rule = self.number(item.rule)
        return (key, bytes(item)) if item.rule else None

    def query(self, key: bytes, value: bytes) -> tuple[bytes, bytes] | None:
        """struct ram_query_key and struct ram_query. A query that nothing allows is kept: its reply is
        matched all the same."""
        item = abi.Query.from_buffer_copy(value)
        item.rule, item.alias = self.number(item.rule), self.number(item.alias)
        return key, bytes(item)


@dataclass(frozen=True)
class Heritage:
    """The maps of an older scope, open for as long as this is not closed."""

    source: object
    """Equal for the same older scope."""
    maps: Mapping[str, Map]
    translation: Translation
    _copied: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    """What copy_to() has found before, by the name of the map: that is not looked at again."""

    def kept(self) -> dict[str, Map]:
        """Those to go on with, open for whoever takes them."""
        return {name: self.maps[name].twin() for name in KEPT if name in self.maps}

    def copy_to(self, maps: Mapping[str, Map]) -> None:
        """Adds what is not in the newer scope's maps, or is there for a shorter time."""
        translate = self.translation
        # Queries first: what is answered behind that is learned by the newer programs, and what was answered
        # before that is among what is copied then.
        for name, one in (
            ("queries", translate.query),
            ("unlisted", translate.query),
            ("learned", translate.opening),
            ("aliases", translate.alias),
        ):
            if name not in self.maps or name not in maps:
                continue
            before, now = self._copied.get(name, {}), dict(self.maps[name].snapshot())
            self._copied[name] = now
            for key, value in now.items():
                if before.get(key) == value:
                    continue
                pair = one(key, value)
                if pair is not None and _is_news(name, maps[name].get(pair[0]), pair[1]):
                    maps[name][pair[0]] = pair[1]

    def close(self) -> None:
        """Gives the maps back."""
        for item in self.maps.values():
            item.close()


def _is_news(name: str, there: bytes | None, value: bytes) -> bool:
    """Whatever says until when it holds, begins with that."""
    if there is None:
        return True
    if name not in ("learned", "aliases"):
        return False
    (before,), (now,) = struct.unpack_from("=Q", there), struct.unpack_from("=Q", value)
    return bool(now > before)

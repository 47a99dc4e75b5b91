"""The addresses that names have opened in a scope, for those who ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.records import rule_text
from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.tables import Tables

MOST = 1000
"""Of a scope, that are described in one answer; those that last longest are left out."""


class Opened(NamedTuple):
    """An address that is open on some ports; the first to go is the least."""

    expires_ns: int
    packed: bytes
    ports: tuple[int, ...]
    rule: int

    @property
    def address(self) -> abi.IPAddress:
        """Which one it is."""
        return abi.unpack_address(self.packed)

    @property
    def seconds(self) -> float:
        """That it has left; less than 0 in its time of grace."""
        return (self.expires_ns - clock.now_ns()) / clock.NANOSECONDS


def maps_of(scopes: Iterable[Scope]) -> list[Map]:
    """Where these learn; two may share one."""
    return list({scope.maps["learned"].fd: scope.maps["learned"] for scope in scopes}.values())


def openings(learned: Iterable[Map], tables: Tables, grace: int, most: int | None = None) -> Iterator[Opened]:
    """What is open now, in no order. `grace`: seconds after its time. `most`: entries of a map to look at."""
    gone = clock.now_ns() - grace * clock.NANOSECONDS
    lists = tables.rules.port_lists()
    for item in learned:
        for key, value in item.snapshot() if most is None else islice(item.items(), most):
            place, opening = abi.OpeningKey.from_buffer_copy(key), abi.Opening.from_buffer_copy(value)
            if opening.expires_ns >= gone and not opening.flags and place.port_list < len(lists):
                yield Opened(opening.expires_ns, bytes(place.address), lists[place.port_list], opening.rule)


def describe(found: Iterable[Opened], tables: Tables, history: NameHistory) -> list[dict[str, Any]]:
    """Address, ports, seconds left (0: in its time of grace), the rule that opened it, and the name that was
    last looked up for it, if any; the first to go first."""
    return [
        {
            "address": str(each.address),
            "ports": sorted(each.ports),
            "seconds": max(0, int(each.seconds)),
            "rule": rule_text(tables.rule(each.rule)) or None,
            "name": history.name_of(each.address),
        }
        for each in sorted(found)[:MOST]
    ]

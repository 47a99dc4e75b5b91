"""Counting what is in the kernel's maps, in a bounded time, however many scopes and entries there are."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.metrics.sample import Sample

_SECONDS = 0.5
# abi.OpeningKey and abi.Opening, which take ten times as long to read one by one.
_KEY = struct.Struct("=16sI")
_OPENING = struct.Struct("=QII")


@dataclass(frozen=True)
class Counted:
    """A map that is to be counted. `key`: by which it is known again; `origin`: of the addresses in it, if
    there are any, as the metric's label has it."""

    key: tuple[str, int]
    map: Map
    origin: str | None = None

    @property
    def name(self) -> str:
        """As bpf/lib/maps.h has it."""
        return self.key[0]


@dataclass(frozen=True)
class _Found:
    entries: int
    open: int = 0
    refused: int = 0


class Census:
    """Counts maps. Where there is no time for all, the rest is as it was, and comes first the next time.

    One thread calls this.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        self._seconds = seconds
        self._known: dict[tuple[str, int], _Found] = {}
        self._order: dict[tuple[str, int], int] = {}
        self._turn = 0

    def take(self, maps: Iterable[Counted]) -> Iterator[Sample]:
        """The samples of these maps."""
        maps = list(maps)
        self._count(maps)
        fullest: dict[str, tuple[float, int, int]] = {}
        addresses = {(origin, effect): 0 for origin in _ORIGINS for effect in ("allow", "refuse")}
        for item in maps:
            found = self._known.get(item.key, _Found(0))
            room = item.map.shape.max_entries
            fill = (found.entries / room, found.entries, room)
            fullest[item.name] = max(fullest.get(item.name, (-1.0, 0, 0)), fill)
            if item.origin is not None:
                addresses[item.origin, "allow"] += found.open
                addresses[item.origin, "refuse"] += found.refused
        for name, (_, entries, room) in sorted(fullest.items()):
            yield Sample("ram_ebpf_map_entries", entries, (name,))
            yield Sample("ram_ebpf_map_max_entries", room, (name,))
        for labels, number in addresses.items():
            yield Sample("ram_ebpf_learned_addresses", number, labels)

    def _count(self, maps: list[Counted]) -> None:
        self._turn += 1
        there = {item.key for item in maps}
        self._known = {key: found for key, found in self._known.items() if key in there}
        self._order = {key: turn for key, turn in self._order.items() if key in there}
        until = time.monotonic() + self._seconds
        for item in sorted(maps, key=lambda item: self._order.get(item.key, 0)):
            self._known[item.key] = _look(item)
            self._order[item.key] = self._turn
            if time.monotonic() > until:
                return


_ORIGINS = ("replies", "lookups")


def _look(item: Counted) -> _Found:
    if item.origin is None:
        return _Found(item.map.count())
    now = clock.now_ns()
    entries = 0
    opened: set[bytes] = set()
    refused: set[bytes] = set()
    for keys, values in item.map.chunks():
        pairs = zip(_KEY.iter_unpack(keys), _OPENING.iter_unpack(values), strict=True)
        for (address, ports), (expires_ns, _, flags) in pairs:
            entries += 1
            if expires_ns >= now and not flags & abi.OpeningFlag.PRIVATE:
                (refused if ports >= abi.RefusedList.ALL else opened).add(address)
    return _Found(entries, len(opened), len(refused))

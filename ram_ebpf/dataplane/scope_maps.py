"""The maps that each scope has of its own: what traffic fills, so that a flood in one scope evicts nothing of
another one's.

The programs reach them through the maps of maps in bpf/lib/maps.h, by the scope's number. All inner maps of
one outer map must agree in their shape, before Linux 5.14 also in max_entries.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from ram_ebpf.dataplane import abi, syscall
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.maps import Map, object_name
from ram_ebpf.dataplane.syscall import MapType


def _shape(key: int, value: int, entries: int) -> MapShape:
    return MapShape(MapType.LRU_HASH, key, value, entries, 0)


def _structures(key: type[ctypes.Structure], value: type[ctypes.Structure], entries: int) -> MapShape:
    return _shape(ctypes.sizeof(key), ctypes.sizeof(value), entries)


SCOPE_MAPS: Mapping[str, MapShape] = {
    "queries": _structures(abi.QueryKey, abi.Query, 2048),
    "unlisted": _structures(abi.QueryKey, abi.Query, 2048),
    "learned": _structures(abi.OpeningKey, abi.Opening, 8192),
    "aliases": _shape(8, ctypes.sizeof(abi.Alias), 1024),
    "inbound": _shape(ctypes.sizeof(abi.Flow), 8, 4096),
    "held": _structures(abi.Flow, abi.Hold, 512),
    "released": _shape(ctypes.sizeof(abi.Flow), 4, 512),
}
"""By the name of the outer map. About 2.1 MB of kernel memory for a scope."""


TAUGHT = ("learned", "aliases")
"""What one scope may learn for another one as well."""

PLACE = "scope_self"
ESTABLISHED = "established"
DEVICE_MAPS: Mapping[str, MapShape] = {
    ESTABLISHED: _structures(abi.Flow, abi.Connection, 8192),
    "beginnings": _structures(abi.Flow, abi.Beginning, 256),
}
"""The same of scopes that have a place at a device. In a cgroup these lie with the sockets. About 2.3 MB."""


class ScopeNumbersExhaustedError(RuntimeError):
    """More scopes than the data plane has numbers for."""


class ScopeMaps:
    """The inner maps of one scope, in their places in the outer maps for as long as this is not closed."""

    def __init__(
        self,
        number: int,
        outer: Mapping[str, Map],
        shared: Mapping[str, Map] | None = None,
        kept: Mapping[str, Map] | None = None,
    ) -> None:
        """Creates the maps, but for those that it shares with another scope. Raises OSError.

        Nothing is left behind then. `kept`: those of an older scope to go on with, which are this one's from
        now on.
        """
        self.number = number
        self.inherited: set[str] = set()
        """Names of those that are an older scope's."""
        self._kept = dict(kept or {})
        self._outer = {name: outer[name] for name in SCOPE_MAPS}
        self._shared = frozenset(shared or ())
        self.maps: dict[str, Map] = {}
        try:
            for name, shape in SCOPE_MAPS.items():
                self.maps[name] = (shared or {}).get(name) or self._make(name, shape)
            _side_by_side(self._put, SCOPE_MAPS)
        except BaseException:
            self.close()
            raise

    def _put(self, name: str) -> None:
        self._outer[name][struct.pack("=I", self.number)] = struct.pack("=I", self.maps[name].fd)

    def _take(self, name: str) -> None:
        self._outer[name].discard(struct.pack("=I", self.number))

    def __getitem__(self, name: str) -> Map:
        return self.maps[name]

    def _make(self, name: str, shape: MapShape) -> Map:
        kept = self._kept.pop(name, None)
        if kept is not None:
            # All maps of one outer map agree in their shape; another version may have had another one.
            if kept.shape == shape:
                self.inherited.add(name)
                return kept
            kept.close()
        return Map(name, shape)

    def add(self, name: str, shape: MapShape, outer: Map) -> None:
        """One more, that not every scope has. Raises OSError."""
        if name in self.maps:
            return
        inner = self._make(name, shape)
        try:
            outer[struct.pack("=I", self.number)] = struct.pack("=I", inner.fd)
        except BaseException:
            inner.close()
            raise
        self._outer[name], self.maps[name] = outer, inner

    def copy_to(self, other: ScopeMaps) -> None:
        """What is in these maps is in the other scope's as well; what that has of its own stays as it is."""
        for name, item in self.maps.items():
            if name in other.maps:
                there = other.maps[name]
                for key, value in item.items():
                    if there.get(key) is None:
                        there[key] = value

    def clear(self) -> None:
        """Forgets everything."""
        for item in self.maps.values():
            item.clear()

    def close(self) -> None:
        """Takes the maps out of their places and gives them back to the kernel."""
        _side_by_side(self._take, self.maps)
        for name, item in self.maps.items():
            if name not in self._shared:
                item.close()
        for item in self._kept.values():
            item.close()


def _side_by_side(call: Callable[[str], None], names: Collection[str]) -> None:
    """Each change of a map of maps waits for the programs that are running (synchronize_rcu()), 10 ms."""
    if not names:
        return
    try:
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(call, names))
    except RuntimeError:  # no thread can be started: one behind the other, and once more what is done
        for name in names:
            call(name)


def place_map(number: int, flags: int = 0) -> Map:
    """By which attached programs know their scope's number and, by abi.PlaceFlag, where they are."""
    result = Map(PLACE, MapShape(MapType.ARRAY, 4, 4, 1, 0))
    try:
        result[struct.pack("=I", 0)] = struct.pack("=I", number | flags)
    except BaseException:
        result.close()
        raise
    return result


def place_of(program: int) -> int | None:
    """What an attached program (by descriptor) was told by place_map(), whoever loaded it. Raises OSError."""
    for identifier in syscall.program_maps(program):
        with syscall.opened_map(identifier) as fd:
            if syscall.map_info(fd).name == object_name(PLACE):
                value = syscall.map_lookup(fd, struct.pack("=I", 0), 4)
                return None if value is None else int.from_bytes(value, sys.byteorder)
    return None


def free_number(taken: set[int]) -> int:
    """The lowest number that no scope has. Raises ScopeNumbersExhaustedError."""
    for number in range(abi.SCOPES_MAX):
        if number not in taken:
            return number
    raise ScopeNumbersExhaustedError(
        f"{abi.SCOPES_MAX} scopes are governed already, and there is room for no more: govern a parent cgroup"
    )

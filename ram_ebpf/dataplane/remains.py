"""What instances left in the kernel that were killed: found by their pins, and read by those who come next.

A pinned array of programs holds these programs, and they hold all maps that they use. So all that is needed
is found from there, by the names of the maps in the kernel.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ram_ebpf.dataplane import abi, pins, scope_maps, syscall
from ram_ebpf.dataplane.heritage import KEPT, Heritage, Translation
from ram_ebpf.dataplane.maps import Map, object_name
from ram_ebpf.dataplane.syscall import MapType
from ram_ebpf.dataplane.tables import Tables

_COPIED = ("learned", "aliases", "queries", "unlisted")
_WANTED = {
    object_name(name): name
    for name in ("config", "rules", "peers", "firsts", "seeded", "live", *_COPIED, *KEPT)
}


@dataclass
class Left:
    """One view of a dead instance. `arrays`: ids of its arrays of programs; `maps`: by their names in C."""

    config: abi.Config
    arrays: set[int]
    maps: dict[str, Map] = field(default_factory=dict)

    def identity_of(self, number: int) -> int | None:
        """Of a rule; None when there is none of that number."""
        raw = self.maps["rules"].get(struct.pack("=I", number))
        return (abi.Rule.from_buffer_copy(raw).identity or None) if raw is not None else None

    def identities(self) -> Iterator[int]:
        """Those by which it knows connections: of its rules, and of such that it had no more."""
        for key in self.maps["live"]:
            yield int.from_bytes(key, sys.byteorder)

    def close(self) -> None:
        """Gives the maps back."""
        for item in self.maps.values():
            item.close()


class Remains:
    """All that is left of dead instances and is understood. Use as a context manager, or close()."""

    def __init__(self) -> None:
        """Looks for it. What is of another layout is left alone, and counted in `strange`."""
        self.strange = 0
        self._left: list[Left] = []
        for directory in pins.dead():
            with contextlib.suppress(OSError):
                for path in directory.iterdir():
                    self._look(path)
        self._left.sort(key=lambda left: left.config.generation)

    def _look(self, path: Path) -> None:
        fd = syscall.object_get(str(path))
        try:
            info = syscall.map_info(fd)
            if info.type != MapType.PROG_ARRAY:
                return
            found = _maps_of(fd, info.max_entries)
        finally:
            os.close(fd)
        config = _read_config(found)
        if config is None:
            self.strange += 1
        elif "rules" in found and "live" in found:
            view = found["config"].number
            left = next((item for item in self._left if item.maps["config"].number == view), None)
            if left is None:
                left = Left(config, set())
                self._left.append(left)
            left.arrays.add(info.id)
            for name, item in found.items():
                if left.maps.setdefault(name, item) is not item:
                    item.close()
            return
        for item in found.values():
            item.close()

    @property
    def newest(self) -> Left | None:
        """The view of the latest policy."""
        return self._left[-1] if self._left else None

    def __iter__(self) -> Iterator[Left]:
        return iter(self._left)

    def heritage_of(self, program: int, tables: Tables) -> Heritage | None:
        """Of the scope of an attached program, by its id; None when nothing is known of it.

        `tables`: of who takes it.
        """
        with contextlib.suppress(OSError), syscall.opened_program(program) as fd:
            place = scope_maps.place_of(fd)
            used = set(syscall.program_maps(fd))
            for left in self._left:
                if place is not None and used & left.arrays:
                    return _heritage(left, place & abi.SCOPE_MASK, tables)
        return None

    def close(self) -> None:
        """Gives everything back; what was found stays in the kernel."""
        for left in self._left:
            left.close()
        self._left.clear()


def _maps_of(array: int, entries: int) -> dict[str, Map]:
    """The maps of all programs in an array, that are worth something, by their names in C."""
    identifiers: set[int] = set()
    for index in range(entries):
        raw = syscall.map_lookup(array, struct.pack("=I", index), 4)
        if raw is None:
            continue
        with contextlib.suppress(OSError):
            with syscall.opened_program(int.from_bytes(raw, sys.byteorder)) as program:
                identifiers.update(syscall.program_maps(program))
    found: dict[str, Map] = {}
    for identifier in identifiers:
        with contextlib.suppress(OSError), syscall.opened_map(identifier) as fd:
            name = _WANTED.get(syscall.map_info(fd).name)
            if name is not None and name not in found:
                found[name] = Map.opened(name, os.dup(fd))
    return found


def _read_config(found: Mapping[str, Map]) -> abi.Config | None:
    """None where it is of another layout."""
    item = found.get("config")
    if item is None:
        return None
    raw = item.get(struct.pack("=I", 0))
    if raw is None or len(raw) != len(bytes(abi.Config())):
        return None
    config = abi.Config.from_buffer_copy(raw)
    return config if config.layout == abi.LAYOUT else None


def _heritage(left: Left, number: int, tables: Tables) -> Heritage:
    maps: dict[str, Map] = {}
    for name in (*_COPIED, *KEPT):
        outer = left.maps.get(name)
        raw = outer.get(struct.pack("=I", number)) if outer is not None else None
        if raw is None:
            continue
        with contextlib.suppress(OSError), syscall.opened_map(int.from_bytes(raw, sys.byteorder)) as fd:
            maps[name] = Map.opened(name, os.dup(fd))
    return Heritage((id(left), number), maps, Translation(left.identity_of, tables))

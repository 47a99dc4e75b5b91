"""The data plane's part for network devices: compiled and loaded when the first one is governed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ram_ebpf.dataplane import programs
from ram_ebpf.dataplane.compiled import Compiled
from ram_ebpf.dataplane.maps import Map, create_maps
from ram_ebpf.dataplane.programs import DEVICE_PROGRAMS
from ram_ebpf.dataplane.scope_maps import DEVICE_MAPS
from ram_ebpf.dataplane.syscall import MapType

# What the device sides of all views share, once the first one is there.
COMMON = (*DEVICE_MAPS, "governed_devices", "earlier")


class DeviceSide:
    """The programs of bpf/tc.c: compiled and loaded when the first device is governed.

    They share all maps with those of the cgroups but the arrays of programs, in which only one type may be.
    """

    def __init__(self, shared: Mapping[str, Map], cache_directory: Path) -> None:
        self.compiled = Compiled(DEVICE_PROGRAMS.source, cache_directory)
        own = {
            name: shape
            for name, shape in self.compiled.maps.items()
            if name not in shared or shape.type == MapType.PROG_ARRAY
        }
        self._own = create_maps(own, {}, DEVICE_MAPS)
        self.maps: dict[str, Map] = {**shared, **self._own}
        try:
            self.programs = programs.load_shared({DEVICE_PROGRAMS: self.compiled}, self.maps)
        except BaseException:
            self._close_maps(shared_too=True)
            raise

    def _close_maps(self, shared_too: bool = False) -> None:
        for name, item in self._own.items():
            if shared_too or name not in COMMON:
                item.close()

    def close(self) -> None:
        """Gives everything back but what is shared."""
        self.programs.close()
        self._close_maps()

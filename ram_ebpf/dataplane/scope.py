"""What is governed as one: a scope, with the programs that are attached to its places."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.dataplane.programs import Programs
from ram_ebpf.dataplane.scope_maps import ScopeMaps


class Scope:
    """Its maps, and the programs of its places: cgroups and devices.

    All places of a kind have the same programs, so to attach one more costs next to nothing.
    """

    def __init__(
        self,
        maps: ScopeMaps,
        load_for_cgroups: Callable[[ScopeMaps], Programs],
        load_for_devices: Callable[[ScopeMaps, PlaceFlag], Programs],
    ) -> None:
        self.maps = maps
        self._load_for_cgroups = load_for_cgroups
        self._load_for_devices = load_for_devices
        self._of_devices: dict[PlaceFlag, Programs] = {}

    @property
    def number(self) -> int:
        """By which the programs know it."""
        return self.maps.number

    @cached_property
    def programs(self) -> Programs:
        """What is attached to a cgroup of this scope, loaded when first asked for."""
        return self._load_for_cgroups(self.maps)

    def programs_for(self, flags: PlaceFlag) -> Programs:
        """The same for devices of a kind."""
        if flags not in self._of_devices:
            self._of_devices[flags] = self._load_for_devices(self.maps, flags)
        return self._of_devices[flags]

    def close(self) -> None:
        """Gives everything back."""
        for_cgroups: Programs | None = self.__dict__.pop("programs", None)
        for loaded in (*self._of_devices.values(), *([for_cgroups] if for_cgroups else [])):
            loaded.close()
        self._of_devices.clear()
        self.maps.close()

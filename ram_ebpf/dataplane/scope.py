"""What is governed as one: a scope, with the programs that are attached to its places."""

from __future__ import annotations

from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.dataplane.heritage import Heritage
from ram_ebpf.dataplane.programs import Programs
from ram_ebpf.dataplane.scope_maps import ScopeMaps
from ram_ebpf.dataplane.view import View


class Scope:
    """Its maps, its view, and the programs of its places: cgroups and devices.

    All places of a kind have the same programs, so to attach one more costs next to nothing.
    """

    def __init__(self, maps: ScopeMaps, view: View, heritage: Heritage | None = None) -> None:
        """`heritage`: what it takes over, which is closed together with this."""
        self.maps = maps
        self.view = view
        self._heritages: list[Heritage] = []
        if heritage is not None:
            self.inherit(heritage)
        self._of_cgroups: dict[int, Programs] = {}
        self._of_devices: dict[PlaceFlag, Programs] = {}

    @property
    def number(self) -> int:
        """By which the programs know it."""
        return self.maps.number

    def inherit(self, heritage: Heritage) -> None:
        """Copies what another scope has learned, which was or is in the place of this one."""
        if any(known.source == heritage.source for known in self._heritages):
            heritage.close()
            return
        self._heritages.append(heritage)
        heritage.copy_to(self.maps.maps)

    @property
    def has_heritage(self) -> bool:
        """Whether it takes over from others, which still learn."""
        return bool(self._heritages)

    def catch_up(self) -> None:
        """Copies it once more: both were learning for a while."""
        for heritage in self._heritages:
            heritage.copy_to(self.maps.maps)

    def settle(self) -> None:
        """The others learn no more."""
        for heritage in self._heritages:
            heritage.close()
        self._heritages.clear()

    def programs_at(self, depth: int) -> Programs:
        """What is attached to cgroups so deep in the hierarchy, loaded when first asked for."""
        if depth not in self._of_cgroups:
            self._of_cgroups[depth] = self.view.load_for_cgroups(self.maps, depth)
        return self._of_cgroups[depth]

    @property
    def programs(self) -> Programs:
        """The same where no cgroup is inside another one that is governed."""
        return self.programs_at(0)

    def programs_for(self, flags: PlaceFlag) -> Programs:
        """The same for devices of a kind."""
        if flags not in self._of_devices:
            self._of_devices[flags] = self.view.load_for_devices(self.maps, flags)
        return self._of_devices[flags]

    def programs_to_learn_for(self, flags: PlaceFlag) -> Programs | None:
        """The same which refuse nothing, where this takes over from others; None: it does not."""
        return self.programs_for(flags | PlaceFlag.LEARN) if self.has_heritage else None

    def close(self) -> None:
        """Gives everything back."""
        for loaded in (*self._of_cgroups.values(), *self._of_devices.values()):
            loaded.close()
        self._of_cgroups.clear()
        self._of_devices.clear()
        self.settle()
        self.maps.close()

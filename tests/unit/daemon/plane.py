"""A data plane whose maps are in memory and that attaches nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ram_ebpf.dataplane.abi import SCOPES_MAX, ConfigFlag, Posture
from ram_ebpf.dataplane.groundwork import Groundwork
from ram_ebpf.dataplane.plane import Place, Plane
from ram_ebpf.dataplane.programs import Programs
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.scope_maps import DEVICE_MAPS, ESTABLISHED, SCOPE_MAPS, ScopeMaps
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.syscall import MapType
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.dataplane.view import View
from ram_ebpf.policy.rules import RuleSet

from .maps import FakeMap


def _of_scope(name: str) -> FakeMap:
    shape = SCOPE_MAPS[name]
    return FakeMap(shape.max_entries, shape.value_size, shape.key_size, MapType(shape.type))


class FakeScopeMaps(ScopeMaps):
    """The maps of a scope into which user space writes."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.learned, self.released = _of_scope("learned"), _of_scope("released")
        self.maps = {"learned": self.learned, "released": self.released}

    def add_established(self) -> FakeMap:
        """What a scope with a place at a device has as well."""
        shape = DEVICE_MAPS[ESTABLISHED]
        made = FakeMap(shape.max_entries, shape.value_size, shape.key_size, MapType(shape.type))
        self.maps[ESTABLISHED] = made
        return made


class FakeView(View):
    """Tables, and the maps into which user space writes."""

    def __init__(
        self, rules: RuleSet, posture: Posture = Posture.STRICT, asked_ports: tuple[int, ...] = ()
    ) -> None:
        self.tables = Tables(rules, (1, 2, 3, 4), asked_ports if posture is Posture.REGISTRIES else ())
        self.posture = posture
        self.seeded = FakeMap()
        self.names = FakeMap(key_size=16, value_size=12)
        self.maps = {"seeded": self.seeded, "names": self.names}


class FakePlane(Plane):
    """Tables and maps, and nothing in a kernel. `watching` are the cgroups that it was told to watch last."""

    def __init__(
        self,
        rules: RuleSet,
        settings: Settings | None = None,
        *_: Any,
        posture: Posture = Posture.STRICT,
        ground: Groundwork | None = None,
    ) -> None:
        assert ground is None
        self._settings = settings or Settings()
        self.view = FakeView(rules, posture, self._settings.asked_ports)
        self.tables = self.view.tables
        self._views = [self.view]
        self.seeded = self.view.seeded
        self.resolvers = FakeMap(value_size=4)
        self.resolver_sockets = FakeMap(key_size=8, value_size=4)
        self.encrypted_resolvers = FakeMap(key_size=16, value_size=4)
        self.asked = FakeMap(value_size=8)
        self.own_sockets = FakeMap(key_size=8, value_size=4, kind=MapType.LRU_HASH)
        self.cut_sockets = FakeMap(key_size=8, value_size=4, kind=MapType.LRU_HASH)
        self.maps = {
            "asked": self.asked,
            "own_sockets": self.own_sockets,
            "cut_sockets": self.cut_sockets,
            "seeded": self.seeded,
            "resolvers": self.resolvers,
            "resolver_sockets": self.resolver_sockets,
            "encrypted_resolvers": self.encrypted_resolvers,
        }
        self.watching: set[Path] = set()
        self._scopes = {}
        self._bridges = None
        self._attached = {}
        self._flags = ConfigFlag(0)
        self.settled_ns = 0

    @property
    def is_whole(self) -> bool:
        return True

    def open_view(self, rules: RuleSet, posture: Posture) -> FakeView:
        made = FakeView(rules, posture, self._settings.asked_ports)
        self._views.append(made)
        return made

    def govern(self, number: int, view: FakeView | None = None) -> FakeScopeMaps:
        """Opens a scope of this number, and attaches it to a cgroup of the same name."""
        assert 0 <= number < SCOPES_MAX
        maps = FakeScopeMaps(number)
        scope = Scope(maps, view or self.view)
        self._scopes[number] = scope
        self._attached[Path(f"/cgroup/{number}")] = Place(scope, Programs(), lock=-1, alone=True)
        return maps

    def abandon(self, number: int) -> None:
        """Closes the scope of this number."""
        del self._scopes[number], self._attached[Path(f"/cgroup/{number}")]

    def configure(self, settings: Settings) -> None:
        self._settings = settings

    def watch(self, cgroups: Iterable[Path]) -> None:
        self.watching = set(cgroups)

    def close(self) -> None:
        return

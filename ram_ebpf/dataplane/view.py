"""What one set of rules is in the kernel: the maps that it decides, and the programs that read these.

Scopes with registries of their own, or with another posture, have a view of their own. All else is shared:
who is trusted, what is counted and told, and the outer maps of what each scope has learned.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ram_ebpf.dataplane import abi, clock, programs
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.compiled import Compiled
from ram_ebpf.dataplane.device_side import COMMON, DeviceSide
from ram_ebpf.dataplane.groundwork import Groundwork
from ram_ebpf.dataplane.heritage import Translation
from ram_ebpf.dataplane.maps import Map, create_maps
from ram_ebpf.dataplane.programs import CGROUP_PROGRAMS, DEVICE_PROGRAMS, Programs, ProgramSet
from ram_ebpf.dataplane.scope_maps import DEVICE_MAPS, ESTABLISHED, SCOPE_MAPS, ScopeMaps
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.syscall import MapType
from ram_ebpf.dataplane.tables import SPARE_IDENTITIES, Tables
from ram_ebpf.policy.classes import class_table

_FIRST = struct.pack("=I", 0)
# What a view has for itself; see bpf/lib/maps.h.
_OWN = frozenset(
    {
        "config",
        "names",
        "automaton",
        "rules",
        "live",
        "ports",
        "ranges",
        "private_ranges",
        "seeded",
        "ingress_programs",
        "egress_programs",
    }
)
# Connections whose beginning no device has seen are taken for such that were there before, for so long after
# it is governed. Later on, they may be some that were forgotten since there were too many.
_EARLIER_SECONDS = 300
_SPARE_NAMES = 4096  # of registries that are found by asking


@dataclass
class Common:
    """What all views share. `generation`: of the view that is opened next."""

    ground: Groundwork
    map_sizes: Mapping[str, int]
    generation: int
    maps: dict[str, Map] = field(default_factory=dict)
    mark: int = 0
    """By which bridges know the packets of ports that are known; 0: none holds anybody."""
    of_devices: dict[str, Map] = field(default_factory=dict)
    """Those that only programs of devices use, once there are any."""

    def close(self) -> None:
        """Gives the maps back, after all views."""
        for item in (*self.maps.values(), *self.of_devices.values()):
            item.close()


class View:
    """Maps filled from tables, and the programs that all scopes of this view share."""

    def __init__(self, tables: Tables, posture: abi.Posture, common: Common, number: int = 0) -> None:
        """Creates, fills and loads. Raises VerifierError or OSError; nothing is left in the kernel then.

        `number`: by which it is told from others of its generation.
        """
        self.tables = tables
        self.posture = posture
        self.generation = common.generation
        self.prefix = f"{self.generation}_{number}_"
        """In front of the names of its pins."""
        self.is_learning = False
        """Whether configure() makes it refuse nothing yet, and tell what it would have refused."""
        self._common = common
        self._device_side: DeviceSide | None = None
        self._owned: list[Map] = []
        sizes = self._sizes()
        loaded = common.ground.take_loaded(sizes)
        self.maps = self._keep_maps(self._create_maps(sizes) if loaded is None else loaded.maps)
        try:
            self._fill()
            started = time.monotonic()
            self.programs = (
                programs.load_shared(common.ground.sets, self.maps) if loaded is None else loaded.programs
            )
            self.load_seconds = time.monotonic() - started
        except BaseException:
            if loaded is not None:
                loaded.programs.close()
            self._close_maps()
            raise

    def load_rest(self, rest: Mapping[ProgramSet, Compiled]) -> None:
        """Loads what was left out, as it was not compiled yet. Raises what the constructor raises."""
        missing = {made: compiled for made, compiled in rest.items() if not self.programs.have(made)}
        if missing:
            self.programs.take(programs.load_shared(missing, self.maps))

    def _sizes(self) -> dict[str, int]:
        sizes = self.tables.entries()
        if self.posture is abi.Posture.REGISTRIES:
            sizes["names"] += _SPARE_NAMES
        sizes.update(self._common.map_sizes)
        return sizes

    def _create_maps(self, sizes: Mapping[str, int]) -> dict[str, Map]:
        ground = self._common.ground
        shapes = ground.compiled.maps.items()
        wanted = {name: shape for name, shape in shapes if name not in self._common.maps}
        return create_maps(wanted, sizes, SCOPE_MAPS, ground.there)

    def _keep_maps(self, created: dict[str, Map]) -> dict[str, Map]:
        self._owned = [item for name, item in created.items() if name in _OWN]
        if not self._common.maps:
            self._common.maps = {name: item for name, item in created.items() if name not in _OWN}
        return {**self._common.maps, **created}

    def _fill(self) -> None:
        self.maps["rules"].update(self.tables.rule_entries())
        self.maps["live"].update(self.tables.live())
        self.maps["ports"].update(self.tables.ports())
        self.maps["automaton"].update(self.tables.states())
        self.maps["ranges"].update(self.tables.ranges())
        self.maps["private_ranges"].update(self.tables.private_ranges())
        self.maps["names"].update(self.tables.names())

    def configure(self, settings: Settings, flags: abi.ConfigFlag) -> None:
        """Writes the settings; they are read anew for each packet. `flags`: those that all views have."""
        self.settings = settings
        if settings.allowed_names_only and self.posture is abi.Posture.STRICT:
            flags |= abi.ConfigFlag.ALLOWED_NAMES_ONLY
        if settings.read_names:
            flags |= abi.ConfigFlag.READ_NAMES
        if settings.cut_earlier:
            flags |= abi.ConfigFlag.CUT_EARLIER
        ports = abi.SomePorts
        config = abi.Config(
            layout=abi.LAYOUT,
            generation=self.generation,
            grace_ns=settings.grace * NANOSECONDS,
            query_lifetime_ns=settings.query_lifetime * NANOSECONDS,
            hold_ns=int(settings.hold * NANOSECONDS),
            lease_ns=settings.lease * NANOSECONDS,
            identity_key=self._common.ground.secret,
            mode=abi.Mode.AUDIT if self.is_learning else settings.mode,
            flags=flags,
            minimum_ttl=settings.minimum_ttl,
            maximum_ttl=settings.maximum_ttl,
            automaton_start=self.tables.automaton_start,
            port_lists=self.tables.port_lists,
            loopback_ifindex=settings.loopback,
            multiplier=self.tables.multipliers,
            class_of=tuple(class_table()),
            suffix_depths=self.tables.suffix_depths,
            posture=self.posture,
            unknown=settings.unknown,
            registry_ports=ports(*settings.registry_ports),
            asked_ports=ports(*settings.asked_ports),
        )
        self.maps["config"][_FIRST] = bytes(config)

    def take_over(self, seeded: Map, translation: Translation) -> None:
        """Addresses of exact names that an older view knew."""
        for key, value in seeded.items():
            pair = translation.opening(key, value)
            if pair is not None:
                self.maps["seeded"][pair[0]] = pair[1]

    def keep_connections(self, identities: Iterable[int]) -> None:
        """Connections stay that rules had allowed which are no more. As many as there is room for."""
        gone = [identity for identity in identities if not self.tables.number_of(identity)]
        pairs = ((struct.pack("=Q", identity), _FIRST) for identity in gone[:SPARE_IDENTITIES])
        self.maps["live"].update(pairs)

    def identities(self) -> Iterator[int]:
        """As of Left in remains.py."""
        for key in self.maps["live"]:
            yield int.from_bytes(key, sys.byteorder)

    def refuse_name(self, name: str, rule: int) -> None:
        """From now on addresses of an exact name are refused, by the number of a rule. Raises OSError."""
        key = self.tables.key_of(name)
        before = self.maps["names"].get(key)
        suffix = abi.Suffix.from_buffer_copy(before) if before else abi.Suffix()
        suffix.exact = rule
        self.maps["names"][key] = bytes(suffix)

    @property
    def has_device_side(self) -> bool:
        """Whether the programs for devices are loaded."""
        return self._device_side is not None

    def prepare_devices(self) -> None:
        """Loads them before there is a device. Raises CompileError, VerifierError or OSError."""
        assert self.device_side is not None  # asking for it loads it

    @property
    def device_side(self) -> DeviceSide:
        """The programs for devices, and the maps that only they have; loaded when first asked for."""
        if self._device_side is None:
            self._device_side = DeviceSide(
                {**self.maps, **self._common.of_devices}, self._common.ground.cache_directory
            )
            if not self._common.of_devices:
                self._common.of_devices = {name: self._device_side.maps[name] for name in COMMON}
        return self._device_side

    def load_for_cgroups(self, scope: ScopeMaps, depth: int) -> Programs:
        """What is attached to the cgroups of a scope that are so deep in the hierarchy."""
        compiled = self._common.ground.compiled
        place = scope.number, depth << abi.DEPTH_SHIFT
        return programs.load_attached(CGROUP_PROGRAMS.attached, compiled, self.maps, *place)

    def load_for_devices(self, scope: ScopeMaps, flags: abi.PlaceFlag) -> Programs:
        """What is attached to the devices of a scope that are of one kind."""
        side = self.device_side
        for name, shape in DEVICE_MAPS.items():
            scope.add(name, shape, side.maps[name])
        # What was there before a scope whose connections are known is known as well: time and again five
        # minutes in which one could be made to be forgotten would be a way out.
        known = ESTABLISHED in scope.inherited
        until = 0 if known else clock.now_ns() + _EARLIER_SECONDS * NANOSECONDS
        side.maps["earlier"][struct.pack("=I", scope.number)] = struct.pack("=Q", until)
        hold = flags & abi.PlaceFlag.HOLD
        hooks = DEVICE_PROGRAMS.holding if hold else DEVICE_PROGRAMS.attached
        # What this host itself sends passes no bridge behind the device.
        mark = 0 if flags & abi.PlaceFlag.OWN_TRAFFIC else self._common.mark
        place = scope.number, flags | mark << abi.MARK_SHIFT
        return programs.load_attached(hooks, side.compiled, side.maps, *place)

    def load_for_known(self) -> Programs:
        """What is attached to ports that are known and not governed."""
        side = self.device_side
        place = 0, self._common.mark << abi.MARK_SHIFT
        return programs.load_attached(DEVICE_PROGRAMS.known, side.compiled, side.maps, *place)

    def arrays(self) -> dict[str, Map]:
        """The arrays of programs, by names to pin them under."""
        found = _arrays("", self.maps)
        if self._device_side is not None:
            found.update(_arrays("device_", self._device_side.maps))
        return found

    def _close_maps(self) -> None:
        for item in self._owned:
            item.close()

    def close(self) -> None:
        """Gives everything back but what is shared."""
        self.programs.close()
        if self._device_side is not None:
            self._device_side.close()
        self._close_maps()


def _arrays(prefix: str, maps: Mapping[str, Map]) -> dict[str, Map]:
    return {f"{prefix}{name}": item for name, item in maps.items() if item.shape.type == MapType.PROG_ARRAY}

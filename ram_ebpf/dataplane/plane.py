"""The data plane as one thing: maps filled from a policy, programs loaded, cgroups governed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import abi, cache, cgroups, clock, devices, trusted
from ram_ebpf.dataplane.answering import Answering
from ram_ebpf.dataplane.bridges import Bridges, choose_mark
from ram_ebpf.dataplane.compiled import Compiled
from ram_ebpf.dataplane.devices import Attachment, Device
from ram_ebpf.dataplane.groundwork import Groundwork
from ram_ebpf.dataplane.heritage import Heritage, Translation
from ram_ebpf.dataplane.namehash import draw_multipliers
from ram_ebpf.dataplane.pins import Pins
from ram_ebpf.dataplane.programs import Programs, ProgramSet
from ram_ebpf.dataplane.resolver_cgroups import ResolverCgroups
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.scope_maps import TAUGHT, ScopeMaps, free_number
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.tables import Tables, identity_of
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dataplane.view import Common, View
from ram_ebpf.policy.ruleset import RuleSet

_FIRST = struct.pack("=I", 0)
_DEEPEST = 0x7FFF


def _depth(cgroup: Path) -> int:
    """In the file system, which orders cgroups of which one is in the other as the hierarchy does."""
    return min(len(cgroup.parts), _DEEPEST)


def _is_nested(governed: set[Path]) -> bool:
    return any(parent in governed for cgroup in governed for parent in cgroup.parents)


def _generation(before: int) -> int:
    """Of a new policy: tenths of a second since the start of this host, or one more than before."""
    return max(before + 1, clock.now_ns() // (clock.NANOSECONDS // 10)) & 0xFFFFFFFF


def _translation(older: Tables, newer: Tables) -> Translation:
    def identity(number: int) -> int | None:
        rule = older.rule(number)
        return None if rule is None else identity_of(rule)

    return Translation(identity, newer)


class BusyCgroupError(RuntimeError):
    """Another instance of ram-ebpf governs the cgroup."""


@dataclass
class Place:
    """A cgroup that is governed: its scope, and the lock on its directory."""

    scope: Scope
    programs: Programs
    lock: int
    alone: bool  # the scope was opened for this place, and ends with it


@dataclass
class DevicePlace:
    """A device that is governed."""

    scope: Scope
    lock: socket.socket
    alone: bool
    attached: list[Attachment]


class Plane:
    """Maps and programs of one policy. Use as a context manager: leaving it detaches everything."""

    def __init__(
        self,
        rules: RuleSet,
        settings: Settings,
        resolvers: Iterable[TrustedResolver],
        cache_directory: Path = cache.DEFAULT_DIRECTORY,
        map_sizes: Mapping[str, int] | None = None,
        multipliers: tuple[int, ...] | None = None,
        posture: abi.Posture = abi.Posture.STRICT,
        ground: Groundwork | None = None,
    ) -> None:
        """Compiles (or takes from the cache), creates and fills the maps, loads. Attaches nothing.

        `multipliers`: the secret of the name hash, for tests that want to know it. `ground`: as much of that
        as was done before; it is ours from now on. Raises CompileError, VerifierError or OSError; nothing
        of ours is left in the kernel then.
        """
        self._multipliers = multipliers or draw_multipliers()
        self._ground = ground = ground or Groundwork(cache_directory)
        self.from_cache = ground.compiled.from_cache
        self._remains = ground.remains
        self._common = Common(ground, map_sizes or {}, _generation(ground.generation))
        self._settings = settings
        self._flags = abi.ConfigFlag(0)
        self._scopes: dict[int, Scope] = {}
        self._attached: dict[Path, Place] = {}
        self._devices: dict[Device, DevicePlace] = {}
        self._pins: Pins | None = None
        self._pin_problem: OSError | None = None
        self.settled_ns = 0
        """When (by clock.py) programs last knew what those in whose place they came had learned."""
        self.has_replaced = False
        """Whether what a killed instance had attached somewhere gave way to this."""
        self.relieved_ns = 0
        """When (by clock.py) relieve() began to enforce; 0: what is attached does so from the start."""
        self._beside: list[Callable[[], object]] | None = None  # what detaches those that relieve() relieves
        self._bridges: Bridges | None = None
        self._views: list[View] = []
        self._older: list[View] = []  # of an earlier policy, in use as long as a scope of theirs is
        try:
            first = self.open_view(rules, posture)
            self.tables, self.maps, self.shared = first.tables, first.maps, first.programs
            self.answering = Answering(self.maps)
            self._resolver_cgroups = ResolverCgroups(self.shared)
            self.trust(resolvers)
            self.show_alive()
        except BaseException:
            self._close_views()
            self._common.close()
            ground.close()
            raise

    def open_view(self, rules: RuleSet, posture: abi.Posture) -> View:
        """Loads other rules, for scopes that have them. Raises VerifierError or OSError.

        What earlier instances knew of its names it knows as well.
        """
        view = self._load_view(rules, posture, self._settings, len(self._views))
        self._views.append(view)
        for left in self._remains:
            if "seeded" in left.maps:
                view.take_over(left.maps["seeded"], Translation(left.identity_of, view.tables))
            if self._settings.keep_removed:
                view.keep_connections(left.identities())
        return view

    def _load_view(self, rules: RuleSet, posture: abi.Posture, settings: Settings, number: int) -> View:
        asked = settings.asked_ports if posture is abi.Posture.REGISTRIES else ()
        view = View(Tables(rules, self._multipliers, asked), posture, self._common, number)
        view.configure(settings, self._flags)
        return view

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left to compile_rest()."""
        return self._ground.is_whole

    def compile_rest(self) -> Mapping[ProgramSet, Compiled]:
        """What enforcement has begun without, for load_rest(). Any thread may do it. Raises CompileError."""
        return self._ground.finish()

    def load_rest(self, rest: Mapping[ProgramSet, Compiled]) -> None:
        """Loads that for all views that are without. Raises CompileError, VerifierError or OSError."""
        for view in (*self._older, *self._views):
            view.load_rest(rest)

    def prepare_policy(self, made: Sequence[tuple[RuleSet, abi.Posture]], settings: Settings) -> list[View]:
        """Loads another policy beside the one that is enforced, which stays untouched. Any thread may do it.

        Raises CompileError, VerifierError or OSError; nothing is left in the kernel then.
        """
        self._common.generation = _generation(self._common.generation)
        with_devices = any(view.has_device_side for view in self._views)
        views: list[View] = []
        try:
            for number, (rules, posture) in enumerate(made):
                view = self._load_view(rules, posture, settings, number)
                views.append(view)
                for older in self._views:
                    view.take_over(older.maps["seeded"], _translation(older.tables, view.tables))
                    if settings.keep_removed:
                        view.keep_connections(older.identities())
                if with_devices:
                    view.prepare_devices()
        except BaseException:
            self.discard_policy(views)
            raise
        return views

    @staticmethod
    def discard_policy(views: Iterable[View]) -> None:
        """Gives back what prepare_policy() made."""
        for view in views:
            view.close()

    def take_policy(self, views: Sequence[View], settings: Settings) -> None:
        """From now on scopes are opened with these views. What is attached goes on by the older ones until
        it is attached again with a scope of these."""
        self._older += self._views
        self._views, self._settings = list(views), settings
        first = self._views[0]
        self.tables, self.maps, self.shared = first.tables, first.maps, first.programs
        for view in self._views:
            view.configure(settings, self._flags)  # with the flags of now
        self._resolver_cgroups.use(self.shared)
        self._pin_new()

    def drop_older(self) -> None:
        """Gives back the scopes of earlier policies that are in no place any more, and their views."""
        used = {place.scope.number for place in self._attached.values()}
        used |= {place.scope.number for place in self._devices.values()}
        if self._bridges is not None:
            used.add(self._bridges.held.number)
        for scope in list(self._scopes.values()):
            if scope.view in self._older and scope.number not in used:
                self.close_scope(scope)
        needed = {id(scope.view) for scope in self._scopes.values()}
        for view in list(self._older):
            if id(view) not in needed:
                self._older.remove(view)
                view.close()
                if self._pins is not None:
                    self._pins.drop(view.prefix)

    @property
    def adopted(self) -> bool:
        """Whether a killed instance was found, from whom something is taken over."""
        return self._remains.newest is not None

    @property
    def has_strange_remains(self) -> bool:
        """Whether one was found that had another layout, so that nothing is taken over from it."""
        return self._remains.strange > 0

    def learn_beside(self) -> None:
        """What is attached until relieve() only learns: programs that are left there stay, and refuse.

        For those of another version, of which nothing can be taken over.
        """
        self._beside = []
        for view in self._views:
            view.is_learning = True
        self._configure_all()

    @property
    def is_beside_others(self) -> bool:
        """Whether something is attached beside programs that relieve() would detach."""
        return bool(self._beside)

    def relieve(self) -> None:
        """Enforces what learn_beside() attached, and then detaches what was left there. Raises OSError.

        What was let through meanwhile under no rule is judged again.
        """
        beside, self._beside = self._beside or [], None
        for view in self._views:
            if view.is_learning:
                view.is_learning = False
                view.generation += 1
        self._common.generation += 1
        self._configure_all()
        self.relieved_ns = clock.now_ns()
        for detach in beside:
            with contextlib.suppress(FileNotFoundError):  # the place is gone, and its programs with it
                detach()
        self.has_replaced |= bool(beside)

    def settle(self) -> None:
        """Whoever is to take something over has done so: of an earlier policy, or of a killed instance."""
        for scope in self._scopes.values():
            scope.catch_up()
            scope.settle()
        self._remains.close()

    @property
    def settings(self) -> Settings:
        """Those that hold now."""
        return self._settings

    @property
    def views(self) -> Sequence[View]:
        """All of them, the one that this was made with first."""
        return self._views

    def pin(self) -> None:
        """Has what is attached go on working when this process is killed. Raises OSError where it cannot."""
        if self._pins is None:
            self._pins = Pins()
        for view in (*self._older, *self._views):
            self._pins.add(view.prefix, view.arrays())

    def _pin_new(self) -> None:
        """Where it cannot be, what follows is enforced all the same; see pin_problem()."""
        if self._pins is not None:
            try:
                self.pin()
            except OSError as error:
                self._pin_problem = error

    def pin_problem(self) -> OSError | None:
        """Why something could not be pinned since the last call."""
        problem, self._pin_problem = self._pin_problem, None
        return problem

    def remove_unused_pins(self) -> None:
        """Removes those of dead instances whose places others have taken over."""
        if self._pins is not None:
            self._pins.remove_unused()

    def configure(self, settings: Settings) -> None:
        """Writes the settings; they are read anew for each packet."""
        self._settings = settings
        for view in self._views:
            view.configure(settings, self._flags)

    def _configure_all(self) -> None:
        for view in (*self._older, *self._views):
            view.configure(view.settings, self._flags)

    def _flag(self, flag: abi.ConfigFlag, on: bool) -> None:
        flags = self._flags | flag if on else self._flags & ~flag
        if flags != self._flags:
            self._flags = flags
            self._configure_all()

    def trust(self, resolvers: Iterable[TrustedResolver]) -> None:
        """Makes these the trusted resolvers: new ones are added before old ones go. Raises OSError E2BIG."""
        resolvers = list(resolvers)
        trusted.trust_resolvers(self.maps["resolvers"], resolvers)
        other = any(resolver.port != trusted.DNS_PORT for resolver in resolvers)
        self._flag(abi.ConfigFlag.OTHER_DNS_PORTS, other)

    def trust_sockets(self, cookies: Iterable[int]) -> None:
        """Makes these (by SO_COOKIE) the sockets from which resolvers on this host reply.

        Raises OSError, E2BIG where there is no room for all of them: some are trusted then.
        """
        trusted.trust_numbers(self.maps["resolver_sockets"], cookies)

    def trust_cgroups(self, identifiers: Iterable[int]) -> None:
        """Makes these (by the kernel's ids) the cgroups in which Docker daemons live themselves.

        Raises what trust_sockets() raises.
        """
        trusted.trust_numbers(self.maps["resolver_cgroups"], identifiers)

    def know_encrypted_resolvers(self, addresses: Iterable[abi.IPAddress]) -> None:
        """Addresses at which DNS over HTTPS is served, so that a refusal can say so."""
        trusted.know_addresses(self.maps["encrypted_resolvers"], addresses)

    def show_alive(self) -> None:
        """Says that user space is there; replies over TCP wait for nobody who has not said so lately."""
        self.maps["alive"][_FIRST] = struct.pack("=Q", clock.now_ns())

    def open_scope(
        self, twin: Scope | None = None, view: View | None = None, place: Path | Device | None = None
    ) -> Scope:
        """A new scope that is attached to nothing yet. `view`: None for the first one.

        `twin`: what one of the two learns opens in the other one as well. The same packets pass cgroup and
        device of a container, so each of them must count them for itself. The twin is closed later.
        `place`: where it is going to be, so that it takes over what is known there.
        """
        view = view or self._views[0]
        shared = {name: twin.maps[name] for name in TAUGHT} if twin is not None else None
        heritage = self._heritage_at(place, view.tables) if place is not None else None
        kept = heritage.kept() if heritage is not None else None
        maps = ScopeMaps(free_number(set(self._scopes)), self.maps, shared, kept)
        scope = Scope(maps, view, heritage)
        self._scopes[scope.number] = scope
        return scope

    def inherit(self, scope: Scope, place: Path | Device) -> None:
        """The scope, which is going to be in one more place, takes over what is known there."""
        heritage = self._heritage_at(place, scope.view.tables)
        if heritage is not None:
            scope.inherit(heritage)

    def _heritage_at(self, place: Path | Device, tables: Tables) -> Heritage | None:
        current = self._attached.get(place) if isinstance(place, Path) else self._devices.get(place)
        if current is not None:
            older, its = current.scope, current.scope.view.tables
            if its is tables:
                return None

            maps = {name: item.twin() for name, item in older.maps.maps.items()}
            return Heritage(older.number, maps, _translation(its, tables))
        if self._remains.newest is None:
            return None
        for program in self._left_at(place):
            heritage = self._remains.heritage_of(program, tables)
            if heritage is not None:
                return heritage
        return None

    @staticmethod
    def _left_at(place: Path | Device) -> Iterator[int]:
        with contextlib.suppress(OSError):
            if isinstance(place, Path):
                for identifiers in cgroups.ours_attached(place).values():
                    yield from identifiers
            else:
                for attachment in devices.ours_attached(place):
                    yield attachment.program

    def close_scope(self, scope: Scope) -> None:
        """Gives up a scope that is attached to nothing."""
        del self._scopes[scope.number]
        scope.close()

    def scope(self, number: int) -> Scope | None:
        """The scope of a number that the kernel gave; None when it is gone."""
        return self._scopes.get(number)

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """All that are open."""
        return tuple(self._scopes.values())

    def tables_of(self, number: int) -> Tables:
        """By which events of a scope are understood; those of the first view when it is gone."""
        scope = self._scopes.get(number)
        return self.tables if scope is None else scope.view.tables

    @contextlib.contextmanager
    def _scope_for(self, scope: Scope | None) -> Iterator[tuple[Scope, bool]]:
        """The scope, or a new one, which does not stay if what follows fails."""
        chosen = scope or self.open_scope()
        try:
            yield chosen, scope is None
        except BaseException:
            if scope is None:
                self.close_scope(chosen)
            raise

    def attach(self, cgroup: Path, scope: Scope | None = None) -> int:
        """Governs a cgroup2 directory. Returns how many programs of a killed instance were replaced.

        `scope`: that it belongs to; None: one of its own. New programs are attached before old ones go, so
        there is no moment without enforcement. That goes for our own as well, where the cgroup belonged to
        another scope. Raises BusyCgroupError when another living instance governs it, OSError where the
        kernel refuses.
        """
        if scope is not None and cgroup in self._attached:
            self._move(cgroup, scope)
            return 0
        lock = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with self._scope_for(scope) as (chosen, alone):
                loaded = chosen.programs_at(_depth(cgroup))
                self._flag(abi.ConfigFlag.NESTED, _is_nested({*self._attached, cgroup}))
                leftovers = cgroups.ours_attached(cgroup)
                cgroups.attach(loaded, cgroup, before_refusing=chosen.catch_up)
        except BlockingIOError as error:
            os.close(lock)
            raise BusyCgroupError(f"{cgroup} is already governed by another instance of ram-ebpf") from error
        except BaseException:
            os.close(lock)
            raise
        self._attached[cgroup] = Place(chosen, loaded, lock, alone)
        if leftovers and self._beside is not None:
            self._beside.append(lambda: cgroups.detach_leftovers(leftovers, cgroup))
            return sum(map(len, leftovers.values()))
        chosen.catch_up()
        count = cgroups.detach_leftovers(leftovers, cgroup)
        self.has_replaced |= count > 0
        chosen.catch_up()
        self._note_settled(chosen)
        return count

    def _note_settled(self, scope: Scope) -> None:
        if scope.has_heritage:
            self.settled_ns = clock.now_ns()

    def _move(self, cgroup: Path, scope: Scope) -> None:
        place = self._attached[cgroup]
        if place.scope is scope:
            return
        loaded = scope.programs_at(_depth(cgroup))
        cgroups.attach(loaded, cgroup, before_refusing=scope.catch_up)
        scope.catch_up()
        cgroups.detach(place.programs, cgroup)
        scope.catch_up()
        self._note_settled(scope)
        self._attached[cgroup] = Place(scope, loaded, place.lock, alone=False)

    def is_current(self, cgroup: Path) -> bool:
        """Whether the directory that was attached to is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._attached[cgroup].lock), os.stat(cgroup))  # noqa: PTH116 - often
        except OSError:
            return False

    def detach(self, cgroup: Path) -> None:
        """Lets go of one cgroup; one that was removed has let go already."""
        current = self.is_current(cgroup)
        place = self._attached.pop(cgroup)
        if current:
            cgroups.detach(place.programs, cgroup)
        if self._flags & abi.ConfigFlag.NESTED:
            # What it has judged is from now on the business of those around it.
            self.maps["judged"].clear()
            self._flag(abi.ConfigFlag.NESTED, _is_nested(set(self._attached)))
        os.close(place.lock)
        if place.alone:
            self.close_scope(place.scope)

    @property
    def attached(self) -> tuple[Path, ...]:
        """The cgroups governed now."""
        return tuple(self._attached)

    def scope_of(self, cgroup: Path) -> Scope:
        """The scope that a governed cgroup belongs to."""
        return self._attached[cgroup].scope

    def attach_device(self, device: Device, scope: Scope | None = None) -> int:
        """The same for a network device. Raises BusyDeviceError, CompileError, VerifierError or OSError."""
        if scope is not None and device in self._devices:
            self._move_device(device, scope)
            return 0
        lock = devices.lock(device)
        try:
            with self._scope_for(scope) as (chosen, alone):
                loaded = chosen.programs_for(device.flags)
                self._pin_new()
                self._mark_governed(device, True)
                leftovers = devices.ours_attached(device)
                attached = devices.attach(
                    loaded,
                    device,
                    learning=chosen.programs_to_learn_for(device.flags),
                    before_refusing=chosen.catch_up,
                )
        except BaseException:
            self._mark_governed(device, False)
            lock.close()
            raise
        self._devices[device] = DevicePlace(chosen, lock, alone, attached)
        if leftovers and self._beside is not None:
            self._beside.append(lambda: devices.detach(device, leftovers))
            return len(leftovers)
        chosen.catch_up()
        devices.detach(device, leftovers)
        self.has_replaced |= bool(leftovers)
        chosen.catch_up()
        return len(leftovers)

    def _move_device(self, device: Device, scope: Scope) -> None:
        place = self._devices[device]
        if place.scope is scope:
            return
        loaded = scope.programs_for(device.flags)
        self._pin_new()
        attached = devices.attach(
            loaded,
            device,
            learning=scope.programs_to_learn_for(device.flags),
            before_refusing=scope.catch_up,
        )
        scope.catch_up()
        devices.detach(device, place.attached)
        scope.catch_up()
        self._devices[device] = DevicePlace(scope, place.lock, False, attached)

    def prepare_devices(self, views: Collection[View] = ()) -> None:
        """Loads what devices need before there is one, as it takes a second. Raises as attach_device does.

        `views`: of the scopes that may have devices; none: the first one.
        """
        for view in views or self._views[:1]:
            view.prepare_devices()
        self._pin_new()

    def prepare_bridges(self, bridges: Iterable[Device]) -> None:
        """Loads what holds new containers at bridges, before any device is governed. Raises as that does."""
        if self._bridges is not None:
            return
        self._common.mark = choose_mark(bridges)
        self._bridges = Bridges(self._open_held())
        self._pin_new()

    @property
    def bridges(self) -> Bridges:
        """Where new containers are held. To be prepared before."""
        assert self._bridges is not None
        return self._bridges

    def move_bridges(self) -> None:
        """Holds new containers by the rules of views that were opened since. Raises as prepare_bridges()."""
        if self._bridges is None:
            return
        before = self._bridges.held
        self._bridges.move(self._open_held())
        self.close_scope(before)

    def _open_held(self) -> Scope:
        # Strict where there is such a view: whoever is held may turn out to belong there.
        prepared = [view for view in self._views if view.has_device_side] or self._views[:1]
        strict = [view for view in prepared if view.posture is abi.Posture.STRICT]
        held = self.open_scope(view=(strict or prepared)[0])
        held.programs_for(devices.BEHIND | abi.PlaceFlag.HOLD)
        return held

    def release_bridges(self) -> None:
        """Holds nobody any more."""
        if self._bridges is not None:
            self._bridges.close()
            self.close_scope(self._bridges.held)
            self._bridges = None

    def hand_over_held(self, scope: Scope) -> None:
        """What those who are held have learned is known in a scope of the same view."""
        if self._bridges is not None and self._bridges.held.view is scope.view:
            self._bridges.held.maps.copy_to(scope.maps)

    def forget_held(self) -> None:
        """Nobody is held any more."""
        if self._bridges is not None:
            self._bridges.held.maps.clear()

    def _mark_governed(self, device: Device, governed: bool) -> None:
        """What comes from behind a governed device speaks for no resolver; see bpf/lib/reply.h."""
        if device.flags & abi.PlaceFlag.OWN_TRAFFIC or device.namespace is not None:
            return
        numbers = self._common.of_devices.get("governed_devices")
        if numbers is None:  # nothing for devices is loaded
            return
        key = struct.pack("=I", device.index)
        if governed:
            numbers[key] = struct.pack("=I", 1)
        else:
            numbers.discard(key)

    def detach_device(self, device: Device) -> None:
        """Lets go of a device; one that is gone has let go already."""
        place = self._devices.pop(device)
        devices.detach(device, place.attached)
        self._mark_governed(device, False)
        place.lock.close()
        if place.alone:
            self.close_scope(place.scope)

    @property
    def attached_devices(self) -> tuple[Device, ...]:
        """The devices governed now."""
        return tuple(self._devices)

    def watch(self, directories: Iterable[Path]) -> None:
        """Makes these the cgroups of resolvers whose replies are recognised by their sockets.

        Raises OSError where the kernel refuses; the others are watched all the same.
        """
        self._resolver_cgroups.watch(directories, self._attached)

    @property
    def watched(self) -> tuple[Path, ...]:
        """The cgroups of resolvers that are watched now."""
        return self._resolver_cgroups.watched

    def counters(self) -> dict[abi.Reason, int]:
        """How often each reason was given, those never given left out."""
        return {abi.Reason(index): count for index, count in self.maps["counters"].per_cpu_sums().items()}

    def _close_views(self) -> None:
        for view in reversed([*self._older, *self._views]):
            view.close()

    def close(self) -> None:
        """Detaches everything and gives the maps and programs back to the kernel."""
        self._resolver_cgroups.close()
        for cgroup in self.attached:
            self.detach(cgroup)
        for device in self.attached_devices:
            self.detach_device(device)
        self.release_bridges()
        for scope in reversed(list(self._scopes.values())):
            self.close_scope(scope)
        if self._pins is not None:
            self._pins.close()
        self._close_views()
        self._common.close()
        self._ground.close()

    def __enter__(self) -> Plane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

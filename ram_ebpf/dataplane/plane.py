"""The data plane as one thing: maps filled from a policy, programs loaded, cgroups governed."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import secrets
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import abi, cache, cgroups, clock, devices, features, programs
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.device_side import DeviceSide
from ram_ebpf.dataplane.devices import Attachment, Device
from ram_ebpf.dataplane.maps import Map, create_maps, raise_memlock_limit
from ram_ebpf.dataplane.namehash import draw_multipliers
from ram_ebpf.dataplane.pins import Pins
from ram_ebpf.dataplane.programs import CGROUP_PROGRAMS, DEVICE_PROGRAMS, RESOLVER_HOOKS, Programs
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.scope_maps import (
    ESTABLISHED,
    ESTABLISHED_SHAPE,
    SCOPE_MAPS,
    TAUGHT,
    ScopeMaps,
    free_number,
    place_map,
)
from ram_ebpf.dataplane.syscall import MapType
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.classes import class_table
from ram_ebpf.policy.rules import RuleSet

_LOOPBACK_IFINDEX = 1  # in every network namespace: net/core/net_namespace.c, loopback_net_init
_DNS_PORT = 53
_FIRST = struct.pack("=I", 0)
# dockerd answers at this address in each container's own network namespace, with sockets that are not in ours
# and on a port to which NAT leads what is sent to port 53 (moby: libnetwork/resolver.go).
DOCKER_RESOLVER = ipaddress.ip_address("127.0.0.11")


@dataclass(frozen=True)
class Settings:
    """What the programs are told beside the rules. Seconds.

    `hold`: how long replies over TCP wait for user space; 0: not at all. `loopback`: the number of the
    loopback interface, 0 where there is no other one to tell it from (test runs).
    """

    mode: abi.Mode = abi.Mode.ENFORCE
    grace: int = 30
    minimum_ttl: int = 1
    maximum_ttl: int = 86400
    query_lifetime: int = 30
    hold: float = 3.0
    allowed_names_only: bool = False
    loopback: int = _LOOPBACK_IFINDEX


@dataclass(frozen=True)
class TrustedResolver:
    """A resolver whose replies are learned. `local`: it lives on this host, behind the loopback interface."""

    address: abi.IPAddress
    port: int = _DNS_PORT
    local: bool = False

    @property
    def flags(self) -> abi.ResolverFlag:
        """As the programs know it."""
        flags = abi.ResolverFlag.LOCAL if self.local else abi.ResolverFlag(0)
        if self.local and self.address == DOCKER_RESOLVER:
            flags |= abi.ResolverFlag.TRANSLATED
        return flags


def _arrays(maps: Mapping[str, Map]) -> dict[str, Map]:
    """The arrays of programs."""
    return {name: item for name, item in maps.items() if item.shape.type == MapType.PROG_ARRAY}


class BusyCgroupError(RuntimeError):
    """Another instance of ram-ebpf governs the cgroup."""


@dataclass
class Place:
    """A cgroup that is governed: its scope, and the lock on its directory."""

    scope: Scope
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
    ) -> None:
        """Compiles (or takes from the cache), creates and fills the maps, loads. Attaches nothing.

        `multipliers`: the secret of the name hash, for tests that want to know it. Raises CompileError,
        VerifierError or OSError; nothing of ours is left in the kernel then.
        """
        raise_memlock_limit()
        self.tables = Tables(rules, multipliers or draw_multipliers())
        self._identity_key = (secrets.randbits(64), secrets.randbits(64))
        self._cache_directory = cache_directory
        self._bytecode, self.from_cache = cache.load_or_compile(
            CGROUP_PROGRAMS.source, features.compiler_flags(), cache_directory
        )
        self._settings = settings
        self._scopes: dict[int, Scope] = {}
        self._attached: dict[Path, Place] = {}
        self._devices: dict[Device, DevicePlace] = {}
        self._device_side: DeviceSide | None = None
        self._watched: dict[Path, int] = {}
        sizes = {**self.tables.entries(), **(map_sizes or {})}
        self.maps = create_maps(self._bytecode.maps, sizes, SCOPE_MAPS)
        self._pins: Pins | None = None
        try:
            self._fill(settings, resolvers)
            self.shared = self._load()
        except BaseException:
            self._close_maps()
            raise

    def pin(self) -> None:
        """Has what is attached go on working when this process is killed. Raises OSError where it cannot."""
        if self._pins is None:
            self._pins = Pins()
            self._pins.add("", _arrays(self.maps))
            if self._device_side is not None:
                self._pins.add("device_", _arrays(self._device_side.maps))

    def remove_unused_pins(self) -> None:
        """Removes those of dead instances whose places others have taken over."""
        if self._pins is not None:
            self._pins.remove_unused()

    def _load(self) -> Programs:
        return programs.load_shared(CGROUP_PROGRAMS, self._bytecode, self.maps)

    def _load_for_cgroups(self, scope: ScopeMaps) -> Programs:
        with contextlib.closing(place_map(scope.number)) as myself:
            return programs.load_attached(CGROUP_PROGRAMS, self._bytecode, self.maps, myself)

    def _load_for_devices(self, scope: ScopeMaps, flags: abi.PlaceFlag) -> Programs:
        side = self.device_side
        scope.add(ESTABLISHED, ESTABLISHED_SHAPE, side.maps[ESTABLISHED])
        with contextlib.closing(place_map(scope.number, flags)) as myself:
            return programs.load_attached(DEVICE_PROGRAMS, side.bytecode, side.maps, myself)

    @property
    def device_side(self) -> DeviceSide:
        """The programs for devices, and the maps that only they have; loaded when first asked for."""
        if self._device_side is None:
            self._device_side = DeviceSide(self.maps, self._cache_directory)
            if self._pins is not None:
                self._pins.add("device_", _arrays(self._device_side.maps))
        return self._device_side

    def _fill(self, settings: Settings, resolvers: Iterable[TrustedResolver]) -> None:
        self.maps["rules"].update(self.tables.rule_entries())
        self.maps["ports"].update(self.tables.ports())
        self.maps["automaton"].update(self.tables.states())
        self.maps["ranges"].update(self.tables.ranges())
        self.maps["private_ranges"].update(self.tables.private_ranges())
        self.maps["names"].update(self.tables.names())
        self._other_dns_ports = False
        self.trust(resolvers)
        self.configure(settings)
        self.show_alive()

    def configure(self, settings: Settings) -> None:
        """Writes the settings; they are read anew for each packet."""
        self._settings = settings
        flags = abi.ConfigFlag(0)
        if settings.allowed_names_only:
            flags |= abi.ConfigFlag.ALLOWED_NAMES_ONLY
        if self._other_dns_ports:
            flags |= abi.ConfigFlag.OTHER_DNS_PORTS
        config = abi.Config(
            grace_ns=settings.grace * NANOSECONDS,
            query_lifetime_ns=settings.query_lifetime * NANOSECONDS,
            hold_ns=int(settings.hold * NANOSECONDS),
            identity_key=self._identity_key,
            mode=settings.mode,
            flags=flags,
            minimum_ttl=settings.minimum_ttl,
            maximum_ttl=settings.maximum_ttl,
            automaton_start=self.tables.automaton_start,
            port_lists=self.tables.port_lists,
            loopback_ifindex=settings.loopback,
            multiplier=self.tables.multipliers,
            class_of=tuple(class_table()),
            suffix_depths=self.tables.suffix_depths,
        )
        self.maps["config"][_FIRST] = bytes(config)

    def trust(self, resolvers: Iterable[TrustedResolver]) -> None:
        """Makes these the trusted resolvers: new ones are added before old ones go."""
        resolvers = list(resolvers)
        self._replace(
            "resolvers", {abi.endpoint(r.address, r.port): struct.pack("=I", r.flags) for r in resolvers}
        )
        other = any(resolver.port != _DNS_PORT for resolver in resolvers)
        if other != self._other_dns_ports:
            self._other_dns_ports = other
            self.configure(self._settings)

    def trust_sockets(self, cookies: Iterable[int]) -> None:
        """Makes these (by SO_COOKIE) the sockets from which resolvers on this host reply."""
        self._replace(
            "resolver_sockets", {struct.pack("=Q", cookie): struct.pack("=I", 1) for cookie in cookies}
        )

    def trust_cgroups(self, identifiers: Iterable[int]) -> None:
        """Makes these (by the kernel's ids) the cgroups in which Docker daemons live themselves."""
        self._replace(
            "resolver_cgroups",
            {struct.pack("=Q", identifier): struct.pack("=I", 1) for identifier in identifiers},
        )

    def know_encrypted_resolvers(self, addresses: Iterable[abi.IPAddress]) -> None:
        """Addresses at which DNS over HTTPS is served, so that a refusal can say so."""
        self.maps["encrypted_resolvers"].update(
            (abi.pack_address(address), struct.pack("=I", 1)) for address in addresses
        )

    def _replace(self, name: str, wanted: Mapping[bytes, bytes]) -> None:
        current = self.maps[name]
        current.update(wanted.items())
        for key in list(current):
            if key not in wanted:
                current.discard(key)

    def show_alive(self) -> None:
        """Says that user space is there; replies over TCP wait for nobody who has not said so lately."""
        self.maps["alive"][_FIRST] = struct.pack("=Q", clock.now_ns())

    def open_scope(self, twin: Scope | None = None) -> Scope:
        """A new scope that is attached to nothing yet.

        `twin`: what one of the two learns opens in the other one as well. The same packets pass cgroup and
        device of a container, so each of them must count them for itself. The twin is closed later.
        """
        shared = {name: twin.maps[name] for name in TAUGHT} if twin is not None else None
        maps = ScopeMaps(free_number(set(self._scopes)), self.maps, shared)
        scope = Scope(maps, self._load_for_cgroups, self._load_for_devices)
        self._scopes[scope.number] = scope
        return scope

    def close_scope(self, scope: Scope) -> None:
        """Gives up a scope that is attached to nothing."""
        del self._scopes[scope.number]
        scope.close()

    def scope(self, number: int) -> Scope | None:
        """The scope of a number that the kernel gave; None when it is gone."""
        return self._scopes.get(number)

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
        there is no moment without enforcement. Raises BusyCgroupError when another living instance governs
        it, OSError where the kernel refuses.
        """
        lock = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with self._scope_for(scope) as (chosen, alone):
                leftovers = cgroups.ours_attached(cgroup)
                cgroups.attach(chosen.programs, cgroup)
        except BlockingIOError as error:
            os.close(lock)
            raise BusyCgroupError(f"{cgroup} is already governed by another instance of ram-ebpf") from error
        except BaseException:
            os.close(lock)
            raise
        self._attached[cgroup] = Place(chosen, lock, alone)
        return cgroups.detach_leftovers(leftovers, cgroup)

    def is_current(self, cgroup: Path) -> bool:
        """Whether the directory that was attached to is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._attached[cgroup].lock), cgroup.stat())
        except OSError:
            return False

    def detach(self, cgroup: Path) -> None:
        """Lets go of one cgroup; one that was removed has let go already."""
        current = self.is_current(cgroup)
        place = self._attached.pop(cgroup)
        if current:
            cgroups.detach(place.scope.programs, cgroup)
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
        lock = devices.lock(device)
        try:
            with self._scope_for(scope) as (chosen, alone):
                loaded = chosen.programs_for(device.flags)
                self._mark_governed(device, True)
                leftovers = devices.ours_attached(device)
                attached = devices.attach(loaded, device)
        except BaseException:
            self._mark_governed(device, False)
            lock.close()
            raise
        self._devices[device] = DevicePlace(chosen, lock, alone, attached)
        devices.detach(device, leftovers)
        return len(leftovers)

    def prepare_devices(self) -> None:
        """Loads what devices need before there is one, as it takes a second. Raises as attach_device does."""
        assert self.device_side is not None  # asking for it loads it

    def hold(self, device: Device) -> Attachment:
        """Lets nothing pass that what is behind a device sends. It is let go of by devices.detach()."""
        return devices.hold(self.device_side.programs, device)

    def _mark_governed(self, device: Device, governed: bool) -> None:
        """What comes from behind a governed device speaks for no resolver; see bpf/lib/reply.h."""
        if device.flags & abi.PlaceFlag.OWN_TRAFFIC or device.namespace is not None:
            return
        numbers = self.device_side.maps["governed_devices"]
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
        wanted = set(directories)
        for cgroup in set(self._watched):
            # A service that restarts gets a new cgroup of the same name, with nothing attached to it.
            if cgroup not in wanted or not self._is_watched(cgroup):
                self._unwatch(cgroup)
        problem: OSError | None = None
        for cgroup in wanted - set(self._watched):
            try:
                self._watch(cgroup)
            except OSError as error:
                problem = error
        if problem is not None:
            raise problem

    def _watch(self, cgroup: Path) -> None:
        inode = cgroup.stat().st_ino
        lock = None
        alone = cgroup in self._attached  # then the directory is locked by us
        if not alone:
            lock = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
        try:
            leftovers = cgroups.ours_attached(cgroup, RESOLVER_HOOKS) if alone else {}
            cgroups.attach(self.shared, cgroup, RESOLVER_HOOKS)
            cgroups.detach_leftovers(leftovers, cgroup)
        finally:
            # Others may watch it too, and govern it: a lock that outlived this would stand in their way.
            if lock is not None:
                os.close(lock)
        self._watched[cgroup] = inode

    def _is_watched(self, cgroup: Path) -> bool:
        try:
            return cgroup.stat().st_ino == self._watched[cgroup]
        except OSError:
            return False

    def _unwatch(self, cgroup: Path) -> None:
        there = self._is_watched(cgroup)
        del self._watched[cgroup]
        if there:
            with contextlib.suppress(FileNotFoundError):
                cgroups.detach(self.shared, cgroup, RESOLVER_HOOKS)

    @property
    def watched(self) -> tuple[Path, ...]:
        """The cgroups of resolvers that are watched now."""
        return tuple(self._watched)

    def counters(self) -> dict[abi.Reason, int]:
        """How often each reason was given, those never given left out."""
        return {abi.Reason(index): count for index, count in self.maps["counters"].per_cpu_sums().items()}

    def _close_maps(self) -> None:
        for item in self.maps.values():
            item.close()

    def close(self) -> None:
        """Detaches everything and gives the maps and programs back to the kernel."""
        for cgroup in self.watched:
            self._unwatch(cgroup)
        for cgroup in self.attached:
            self.detach(cgroup)
        for device in self.attached_devices:
            self.detach_device(device)
        for scope in reversed(list(self._scopes.values())):
            self.close_scope(scope)
        if self._pins is not None:
            self._pins.close()
        self.shared.close()
        if self._device_side is not None:
            self._device_side.close()
        self._close_maps()

    def __enter__(self) -> Plane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

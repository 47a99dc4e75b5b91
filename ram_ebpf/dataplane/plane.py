"""The data plane as one thing: maps filled from a policy, programs loaded, cgroups governed."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import secrets
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import abi, cache, clock, features, programs
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.maps import create_maps, raise_memlock_limit
from ram_ebpf.dataplane.namehash import draw_multipliers
from ram_ebpf.dataplane.scopes import SCOPE_MAPS, ScopeMaps, free_number
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.classes import class_table
from ram_ebpf.policy.rules import RuleSet

SOURCE = "cgroup.c"
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


class BusyCgroupError(RuntimeError):
    """Another instance of ram-ebpf governs the cgroup."""


@dataclass
class Scope:
    """One governed place: its maps, its programs, and, once it is attached, the lock on its directory."""

    maps: ScopeMaps
    programs: programs.Programs
    lock: int | None = None

    @property
    def number(self) -> int:
        """By which the programs know it."""
        return self.maps.number

    def close(self) -> None:
        """Gives everything back."""
        self.programs.close()
        self.maps.close()
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None


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
        self._bytecode, self.from_cache = cache.load_or_compile(
            SOURCE, features.compiler_flags(), cache_directory
        )
        self._settings = settings
        self._scopes: dict[int, Scope] = {}
        self._attached: dict[Path, Scope] = {}
        self._watched: dict[Path, int] = {}
        sizes = {**self.tables.entries(), **(map_sizes or {})}
        self.maps = create_maps(self._bytecode.maps, sizes, SCOPE_MAPS)
        try:
            self._fill(settings, resolvers)
            self.shared = self._load()
        except BaseException:
            self._close_maps()
            raise

    def _load(self) -> programs.Programs:
        return programs.load_shared(self._bytecode, self.maps)

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

    def open_scope(self) -> Scope:
        """A new scope that is attached to nothing yet."""
        maps = ScopeMaps(free_number(set(self._scopes)), self.maps)
        try:
            scope = Scope(maps, programs.load_scope(self._bytecode, self.maps, maps.myself))
        except BaseException:
            maps.close()
            raise
        self._scopes[scope.number] = scope
        return scope

    def close_scope(self, scope: Scope) -> None:
        """Gives up a scope that is attached to nothing."""
        del self._scopes[scope.number]
        scope.close()

    def scope(self, number: int) -> Scope | None:
        """The scope of a number that the kernel gave; None when it is gone."""
        return self._scopes.get(number)

    def attach(self, cgroup: Path) -> int:
        """Governs a cgroup2 directory. Returns how many programs of a killed instance were replaced.

        New programs are attached before old ones go, so there is no moment without enforcement. Raises
        BusyCgroupError when another living instance governs it, OSError where the kernel refuses.
        """
        lock = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise BusyCgroupError(f"{cgroup} is already governed by another instance of ram-ebpf") from error
        try:
            scope = self.open_scope()
        except BaseException:
            os.close(lock)
            raise
        scope.lock = lock
        try:
            leftovers = programs.ours_attached(cgroup)
            programs.attach(scope.programs, cgroup)
        except BaseException:
            self.close_scope(scope)
            raise
        self._attached[cgroup] = scope
        return programs.detach_leftovers(leftovers, cgroup)

    def is_current(self, cgroup: Path) -> bool:
        """Whether the directory that was attached to is still the one of that name."""
        lock = self._attached[cgroup].lock
        assert lock is not None
        try:
            return os.path.samestat(os.fstat(lock), cgroup.stat())
        except OSError:
            return False

    def detach(self, cgroup: Path) -> None:
        """Lets go of one cgroup; one that was removed has let go already."""
        scope = self._attached[cgroup]
        if self.is_current(cgroup):
            programs.detach(scope.programs, cgroup)
        del self._attached[cgroup]
        self.close_scope(scope)

    @property
    def attached(self) -> tuple[Path, ...]:
        """The cgroups governed now."""
        return tuple(self._attached)

    def watch(self, cgroups: Iterable[Path]) -> None:
        """Makes these the cgroups of resolvers whose replies are recognised by their sockets.

        Raises OSError where the kernel refuses; the others are watched all the same.
        """
        wanted = set(cgroups)
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
            leftovers = programs.ours_attached(cgroup, programs.RESOLVER_HOOKS) if alone else {}
            programs.attach(self.shared, cgroup, programs.RESOLVER_HOOKS)
            programs.detach_leftovers(leftovers, cgroup)
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
                programs.detach(self.shared, cgroup, programs.RESOLVER_HOOKS)

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
        for scope in list(self._scopes.values()):
            self.close_scope(scope)
        self.shared.close()
        self._close_maps()

    def __enter__(self) -> Plane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

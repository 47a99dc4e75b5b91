"""The data plane as one thing: maps filled from a policy, programs loaded, cgroups governed."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import abi, cache, features, programs
from ram_ebpf.dataplane.bytecode import Bytecode
from ram_ebpf.dataplane.maps import create_maps, raise_memlock_limit
from ram_ebpf.dataplane.namehash import draw_multipliers
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.classes import class_table
from ram_ebpf.policy.rules import RuleSet

SOURCE = "cgroup.c"
NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Settings:
    """What the programs are told beside the rules. Seconds."""

    mode: abi.Mode = abi.Mode.ENFORCE
    grace: int = 30
    minimum_ttl: int = 1
    maximum_ttl: int = 86400
    query_lifetime: int = 30


@dataclass(frozen=True)
class TrustedResolver:
    """A resolver whose replies are learned. `local`: it lives on this host, behind the loopback interface."""

    address: abi.IPAddress
    port: int = 53
    local: bool = False


class BusyCgroupError(RuntimeError):
    """Another instance of ram-ebpf governs the cgroup."""


class Plane:
    """Maps and programs of one policy. Use as a context manager: leaving it detaches everything."""

    def __init__(
        self,
        rules: RuleSet,
        settings: Settings,
        resolvers: Iterable[TrustedResolver],
        cache_directory: Path = cache.DEFAULT_DIRECTORY,
        map_sizes: Mapping[str, int] | None = None,
    ) -> None:
        """Compiles (or takes from the cache), creates and fills the maps, loads. Attaches nothing.

        Raises CompileError, VerifierError or OSError; nothing of ours is left in the kernel then.
        """
        raise_memlock_limit()
        self.tables = Tables(rules, draw_multipliers())
        flags = features.compiler_flags()
        bytecode, self.from_cache = cache.load_or_compile(SOURCE, flags, cache_directory)
        self._attached: dict[Path, int] = {}
        self.maps = create_maps(bytecode.maps, {**self.tables.entries(), **(map_sizes or {})})
        try:
            self._fill(settings, resolvers)
            self.programs = self._load(bytecode)
        except BaseException:
            self._close_maps()
            raise

    def _load(self, bytecode: Bytecode) -> programs.Programs:
        return programs.Programs(bytecode, self.maps)

    def _fill(self, settings: Settings, resolvers: Iterable[TrustedResolver]) -> None:
        self.maps["rules"].update(self.tables.rule_entries())
        self.maps["automaton"].update(self.tables.states())
        self.maps["ranges"].update(self.tables.ranges())
        self.maps["names"].update(self.tables.names())
        self.trust(resolvers)
        self.configure(settings)

    def configure(self, settings: Settings) -> None:
        """Writes the settings; they are read anew for each packet."""
        config = abi.Config(
            grace_ns=settings.grace * NANOSECONDS,
            query_lifetime_ns=settings.query_lifetime * NANOSECONDS,
            mode=settings.mode,
            minimum_ttl=settings.minimum_ttl,
            maximum_ttl=settings.maximum_ttl,
            automaton_start=self.tables.automaton_start,
            multiplier=self.tables.multipliers,
            class_of=tuple(class_table()),
        )
        self.maps["config"][struct.pack("=I", 0)] = bytes(config)

    def trust(self, resolvers: Iterable[TrustedResolver]) -> None:
        """Makes these the trusted resolvers: new ones are added before old ones go."""
        wanted = {
            abi.endpoint(r.address, r.port): struct.pack("=I", abi.ResolverFlag.LOCAL if r.local else 0)
            for r in resolvers
        }
        current = self.maps["resolvers"]
        current.update(wanted.items())
        for key in list(current):
            if key not in wanted:
                current.discard(key)

    def attach(self, cgroup: Path) -> int:
        """Governs a cgroup2 directory. Returns how many programs of a killed instance were replaced.

        New programs are attached before old ones go, so there is no moment without enforcement. Raises
        BusyCgroupError when another living instance governs it, OSError where the kernel refuses.
        """
        lock = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftovers = programs.ours_attached(cgroup)
            programs.attach(self.programs, cgroup)
        except BlockingIOError as error:
            os.close(lock)
            raise BusyCgroupError(f"{cgroup} is already governed by another instance of ram-ebpf") from error
        except BaseException:
            os.close(lock)
            raise
        self._attached[cgroup] = lock
        return programs.detach_leftovers(leftovers, cgroup)

    def is_current(self, cgroup: Path) -> bool:
        """Whether the directory that was attached to is still the one of that name."""
        try:
            return os.path.samestat(os.fstat(self._attached[cgroup]), cgroup.stat())
        except OSError:
            return False

    def detach(self, cgroup: Path) -> None:
        """Lets go of one cgroup; one that was removed has let go already."""
        if self.is_current(cgroup):
            programs.detach(self.programs, cgroup)
        os.close(self._attached.pop(cgroup))

    @property
    def attached(self) -> tuple[Path, ...]:
        """The cgroups governed now."""
        return tuple(self._attached)

    def counters(self) -> dict[abi.Reason, int]:
        """How often each reason was given, those never given left out."""
        return {abi.Reason(index): count for index, count in self.maps["counters"].per_cpu_sums().items()}

    def _close_maps(self) -> None:
        for item in self.maps.values():
            item.close()

    def close(self) -> None:
        """Detaches everything and gives the maps and programs back to the kernel."""
        for cgroup in self.attached:
            self.detach(cgroup)
        self.programs.close()
        self._close_maps()

    def __enter__(self) -> Plane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

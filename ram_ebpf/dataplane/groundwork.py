"""What a plane stands on that no policy decides, so that it can be made while the policy is being read."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.dataplane import cache, features, programs
from ram_ebpf.dataplane.compiled import Compiled
from ram_ebpf.dataplane.maps import Map, create_maps, raise_memlock_limit
from ram_ebpf.dataplane.programs import BEGINNING_PROGRAMS, CGROUP_PROGRAMS, Programs, ProgramSet
from ram_ebpf.dataplane.remains import Remains
from ram_ebpf.dataplane.scope_maps import SCOPE_MAPS
from ram_ebpf.dataplane.tables import SPARE_IDENTITIES

# Maps that are used on, as nobody can read them: what the kernel keeps with each socket.
_GONE_ON_WITH = ("peers", "firsts")

_RULES = 2048
_ROOM = {
    "names": 8192,
    "automaton": 256,
    "rules": _RULES,
    "live": _RULES + SPARE_IDENTITIES,
    "seeded": 65536,
    "ranges": 1024,
    "private_ranges": 256,
    "ports": 256,
}
"""Entries of the maps whose size the policy decides, enough for most: together they take 1 MB."""


@dataclass
class Loaded:
    """Maps, empty but for the arrays of programs, and the programs that all scopes share."""

    maps: dict[str, Map]
    programs: Programs
    room: Mapping[str, int]

    def has_room_for(self, entries: Mapping[str, int]) -> bool:
        """`entries`: how many there are to be of each map whose size somebody decides."""
        return all(self.room.get(name, 0) >= count for name, count in entries.items())

    def close(self) -> None:
        """Gives all back."""
        self.programs.close()
        for item in self.maps.values():
            item.close()


class Groundwork:
    """Compiled programs, and what earlier instances have left. Whoever takes it closes it."""

    def __init__(self, cache_directory: Path, in_parts: bool = False) -> None:
        """Compiles, or takes from the cache. Raises CompileError or OSError.

        `in_parts`: what enforcement can begin without is left to finish() where it would have to be compiled,
        unless there is something that enforces by all of it already.
        """
        raise_memlock_limit()
        self.cache_directory = cache_directory
        self.compiled = Compiled(CGROUP_PROGRAMS.source, cache_directory)
        self.remains = Remains()
        newest = self.remains.newest
        self._sets = {CGROUP_PROGRAMS: self.compiled}
        self.is_whole = False
        """Whether there is nothing left to compile of what is loaded for all scopes."""
        if not in_parts or newest is not None or self.remains.strange or _is_kept(BEGINNING_PROGRAMS, self):
            self.finish()
        # What was learned of names is known by this secret, so it is kept together with that.
        self.secret: tuple[int, int] = (
            (secrets.randbits(64), secrets.randbits(64))
            if newest is None
            else (newest.config.identity_key[0], newest.config.identity_key[1])
        )
        self.generation = 0 if newest is None else newest.config.generation
        """The latest one that there was."""
        self.there: dict[str, Map] = (
            {}
            if newest is None
            else {name: newest.maps[name] for name in _GONE_ON_WITH if name in newest.maps}
        )
        """Maps of an earlier instance to go on with."""
        self._loaded: Loaded | None = None

    def finish(self) -> Mapping[ProgramSet, Compiled]:
        """Compiles the rest, or takes it from the cache, and returns that. Raises CompileError."""
        rest = {BEGINNING_PROGRAMS: Compiled(BEGINNING_PROGRAMS.source, self.cache_directory)}
        self._sets |= rest
        self.is_whole = True
        return rest

    @property
    def sets(self) -> Mapping[ProgramSet, Compiled]:
        """What is compiled so far."""
        return dict(self._sets)

    def make_maps(self) -> dict[str, Map]:
        """Those of one view, before its rules are known. Raises OSError."""
        return create_maps(self.compiled.maps, _ROOM, SCOPE_MAPS, self.there)

    def load(self, maps: dict[str, Map]) -> None:
        """Loads what that view's scopes share. Raises CompileError, VerifierError or OSError."""
        try:
            self._loaded = Loaded(
                maps,
                # Whoever has waited for a compiler has nothing else to do any more.
                programs.load_shared(self.sets, maps, aside=self.compiled.from_cache),
                _ROOM,
            )
        except BaseException:
            for item in maps.values():
                item.close()
            raise

    def take_loaded(self, entries: Mapping[str, int]) -> Loaded | None:
        """What was loaded ahead, once, if there is room for so many entries."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None and not loaded.has_room_for(entries):
            loaded.close()
            return None
        return loaded

    def close(self) -> None:
        """Gives back what was not taken."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None
        self.remains.close()


def _is_kept(programs: ProgramSet, ground: Groundwork) -> bool:
    return cache.is_kept(programs.source, features.compiler_flags(), ground.cache_directory)


def _begin_to_load(cache_directory: Path, in_parts: bool) -> Callable[[], Groundwork]:
    """Everything but what the kernel does for long: that is what is returned."""
    ground = Groundwork(cache_directory, in_parts)
    try:
        maps = ground.make_maps()
    except BaseException:
        ground.close()
        raise

    def load() -> Groundwork:
        try:
            ground.load(maps)
        except BaseException:
            ground.close()
            raise
        return ground

    return load


class Ahead:
    """A groundwork that is being made in a thread, which nobody waits for when the process ends.

    The kernel verifies, and a compiler compiles, without this interpreter. What does need it is over when
    this is made: threads that both do are slower than one after the other.
    """

    def __init__(self, cache_directory: Path, in_parts: bool = False) -> None:
        """Begins. What goes wrong is raised by take(). `in_parts`: as of Groundwork."""
        self._done: Future[Groundwork] = Future()
        self._is_taken = False
        load: Callable[[], Groundwork] | None = None
        raise_memlock_limit()
        try:
            source, flags = CGROUP_PROGRAMS.source, features.compiler_flags()
            if cache.is_kept(source, flags, cache_directory):
                load = _begin_to_load(cache_directory, in_parts)
            else:
                cache.compile_ahead(source, flags, cache_directory)
        except Exception as error:
            self._done.set_exception(error)
            return

        def work() -> None:
            try:
                self._done.set_result((load or _begin_to_load(cache_directory, in_parts))())
            except BaseException as error:
                self._done.set_exception(error)

        threading.Thread(target=work, name="groundwork", daemon=True).start()

    def take(self) -> Groundwork:
        """Waits for it. It is the caller's then. Raises CompileError, VerifierError or OSError."""
        self._is_taken = True
        return self._done.result()

    def close(self) -> None:
        """Gives it back if nobody has taken it, as soon as it is there."""
        if not self._is_taken:
            self._done.add_done_callback(_give_back)


def _give_back(done: Future[Groundwork]) -> None:
    if done.exception() is None:
        done.result().close()

"""The control groups of resolvers on this host, where a program notes what they reply: bpf/lib/witness.h."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterable
from pathlib import Path

from ram_ebpf.dataplane import cgroups
from ram_ebpf.dataplane.programs import RESOLVER_HOOKS, Programs


class ResolverCgroups:
    """Those that are watched now, by the number that their directory had then."""

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._watched: dict[Path, int] = {}

    @property
    def watched(self) -> tuple[Path, ...]:
        """Their directories."""
        return tuple(self._watched)

    def use(self, programs: Programs) -> None:
        """Has these in the place of those from before, without a moment in between."""
        before, self._programs = self._programs, programs
        for cgroup in self.watched:
            with contextlib.suppress(OSError):  # it is gone
                cgroups.attach(programs, cgroup, RESOLVER_HOOKS)
                cgroups.detach(before, cgroup, RESOLVER_HOOKS)

    def watch(self, directories: Iterable[Path], governed: Collection[Path]) -> None:
        """Makes these the ones that are watched. `governed`: those whose directories are locked by us.

        Raises OSError where the kernel refuses; the others are watched all the same.
        """
        wanted = set(directories)
        for cgroup in self.watched:
            # A service that restarts gets a new cgroup of the same name, with nothing attached to it.
            if cgroup not in wanted or not self._is_watched(cgroup):
                self._unwatch(cgroup)
        problem: OSError | None = None
        for cgroup in wanted - set(self._watched):
            try:
                self._watch(cgroup, cgroup in governed)
            except OSError as error:
                problem = error
        if problem is not None:
            raise problem

    def _watch(self, cgroup: Path, alone: bool) -> None:
        inode = cgroup.stat().st_ino
        lock = None
        if not alone:
            lock = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alone = True
        try:
            leftovers = cgroups.ours_attached(cgroup, RESOLVER_HOOKS) if alone else {}
            cgroups.attach(self._programs, cgroup, RESOLVER_HOOKS)
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
                cgroups.detach(self._programs, cgroup, RESOLVER_HOOKS)

    def close(self) -> None:
        """Nothing is watched any more."""
        for cgroup in self.watched:
            self._unwatch(cgroup)

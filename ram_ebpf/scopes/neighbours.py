"""The network namespaces in which processes of some cgroups are, by /proc."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ram_ebpf.scopes.cgroup import find_cgroup2_mount, of_process

Identity = tuple[int, int]
_MOST = 4096  # processes that are looked at in one call
_SETTLING = 10.0  # seconds in which a new process, or who is yet to become a container, changes its namespace
_EVERYBODY = 60.0  # seconds between looks at all processes, as old ones may change theirs, or their cgroup


def _processes(cgroup: Path) -> Iterator[int]:
    for parent, _, _ in os.walk(cgroup):
        try:
            text = Path(parent, "cgroup.procs").read_text(encoding="ascii")
        except OSError:  # removed meanwhile, or threaded
            continue
        for word in text.split():
            if word != "0":  # of another PID namespace
                yield int(word)


def namespaces_of(cgroups: Iterable[Path]) -> dict[Identity, Path]:
    """By what tells them apart, each with one way to it (/proc/PID/ns/net), which may soon be gone."""
    found: dict[Identity, Path] = {}
    looked = 0
    for cgroup in cgroups:
        for pid in _processes(cgroup):
            looked += 1
            if looked > _MOST:
                return found
            path = Path(f"/proc/{pid}/ns/net")
            try:
                status = path.stat()
            except OSError:
                continue
            found.setdefault((status.st_dev, status.st_ino), path)
    return found


class Neighbours:
    """What namespaces_of() finds, but for this process's own one, for somebody who asks every second.

    On a host with a thousand processes that takes a tenth of a second. So only new ones are looked at, and
    nobody as long as no process begins.
    """

    def __init__(
        self,
        own: Identity,
        mount: Path | None = None,
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`mount`: of cgroup version 2."""
        self._own, self._mount, self._proc, self._clock = own, mount, proc, clock
        self._cgroups: tuple[Path, ...] | None = None
        self._seen: dict[int, float] = {}  # when each process was first seen
        self._due: set[int] = set()  # who is to be looked at, whether new or not
        self._others: dict[int, Identity] = {}  # of processes in the cgroups
        self._newest = b""
        self._loadavg = str(proc / "loadavg")
        self._youngest = self._looked_at_all = float("-inf")

    def look(self, cgroups: Iterable[Path]) -> dict[Identity, Path]:
        """As namespaces_of(). Raises ScopeError where there are no cgroups of version 2."""
        now, wanted = self._clock(), tuple(cgroups)
        changed = wanted != self._cgroups
        if changed:
            mount = self._mount = self._mount or find_cgroup2_mount()
            if not all(cgroup.is_relative_to(mount) for cgroup in wanted):  # by another mount
                return {which: path for which, path in namespaces_of(wanted).items() if which != self._own}
        everybody = changed or now - self._looked_at_all >= _EVERYBODY
        newest = self._newest_process()
        if everybody or self._due or newest != self._newest or now - self._youngest <= _SETTLING:
            self._cgroups, self._newest = wanted, newest
            self._look_around(now, everybody)
        else:
            self._others = {pid: of for pid, of in self._others.items() if self._identity(pid) == of}
        found: dict[Identity, Path] = {}
        for pid, identity in self._others.items():
            found.setdefault(identity, self._proc / f"{pid}/ns/net")
        return found

    def _newest_process(self) -> bytes:
        """Something else whenever a process has begun (proc_loadavg(5))."""
        loadavg = os.open(self._loadavg, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(loadavg, 256).split()[-1]
        finally:
            os.close(loadavg)

    def _look_around(self, now: float, everybody: bool) -> None:
        there = {int(name) for name in os.listdir(self._proc) if name.isdigit()}  # noqa: PTH208 - names alone
        if self._seen.keys() != there:
            self._seen = {pid: self._seen.get(pid, now) for pid in there}
            self._youngest = max(self._seen.values(), default=now)
            self._others = {pid: of for pid, of in self._others.items() if pid in there}
        if everybody:
            self._looked_at_all, self._due = now, there
        wanted = self._due | {pid for pid, since in self._seen.items() if now - since <= _SETTLING}
        looked_at = sorted(wanted & there)[-_MOST:]
        for pid in looked_at:
            self._look_at(pid)
        self._due = (self._due & there).difference(looked_at)

    def _look_at(self, pid: int) -> None:
        identity = self._identity(pid)
        if identity is not None and identity != self._own and self._is_governed(pid):
            self._others[pid] = identity
        else:
            self._others.pop(pid, None)

    def _identity(self, pid: int) -> Identity | None:
        try:
            status = os.stat(f"{self._proc}/{pid}/ns/net")  # noqa: PTH116 - often
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _is_governed(self, pid: int) -> bool:
        cgroup = of_process(pid, self._mount, self._proc)
        return cgroup is not None and any(cgroup.is_relative_to(top) for top in self._cgroups or ())

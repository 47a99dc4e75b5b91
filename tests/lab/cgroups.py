"""Control groups of the lab: ramlab-<label>/<name> in the cgroup2 hierarchy."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from pathlib import Path

from .owner import PREFIX, label_of


@functools.cache
def mount_point() -> Path:
    """Return where cgroup2 is mounted, alone (/sys/fs/cgroup) or beside version 1 (…/unified)."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            _, _, _, root, path, *_ = before.split()
            # One that another mount hides does not count, and a part of the hierarchy is second choice.
            if (Path(path) / "cgroup.procs").exists() or (Path(path) / "cgroup.controllers").exists():
                found.append((root != "/", path))
    if not found:
        raise RuntimeError("no cgroup2 file system is mounted: mount -t cgroup2 none /sys/fs/cgroup")
    return Path(min(found)[1])


def create(label: str, name: str) -> Path:
    """Make one of a lab's control groups and return its directory."""
    path = mount_point() / f"{PREFIX}{label}" / name
    path.mkdir(parents=True)
    return path


def remove(label: str) -> list[str]:
    """Kill all that runs in a lab's control groups, remove them and return the directories' names."""
    top = mount_point() / f"{PREFIX}{label}"
    if not top.is_dir():
        return []
    _kill(top)
    # Children before parents. A dying process keeps its control group for a moment longer.
    directories = sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True)
    for path in [*directories, top]:
        _remove_directory(path)
    return [top.name]


def labels() -> set[str]:
    """Return the labels of all labs that have a control group."""
    return {label for path in mount_point().glob(f"{PREFIX}*") if (label := label_of(path.name))}


def members(path: Path) -> list[int]:
    """Return the processes of one control group."""
    try:
        return [int(line) for line in (path / "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:  # removed meanwhile
        return []


def _kill(top: Path) -> None:
    try:
        (top / "cgroup.kill").write_text("1", encoding="ascii")
    except OSError:  # before Linux 5.14
        for path in [top, *(path for path in top.rglob("*") if path.is_dir())]:
            for pid in members(path):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _remove_directory(path: Path, patience: float = 5.0) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{path} is still in use by processes {members(path)}") from error
            _kill(path)
            time.sleep(0.005)
        else:
            return

"""Limits of memory: a control group of the memory controller, wherever that is mounted."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab import cgroups

_VERSION_1 = Path("/sys/fs/cgroup/memory")
_DYING = 5.0


def _version_1() -> bool:
    return (_VERSION_1 / "memory.limit_in_bytes").exists()


@contextlib.contextmanager
def limited(name: str, most: int) -> Iterator[Path]:
    """A control group whose processes, and what the kernel has for them, get so many bytes.

    Where the controller belongs to version 2, it is switched on for that one group at the top.
    """
    top = _VERSION_1 if _version_1() else cgroups.mount_point()
    if not _version_1():
        (top / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
    directory = top / f"{name}-{os.getpid()}"
    directory.mkdir()
    try:
        limit = "memory.limit_in_bytes" if _version_1() else "memory.max"
        (directory / limit).write_text(str(most), encoding="ascii")
        yield directory
    finally:
        deadline = time.monotonic() + _DYING
        while True:
            try:
                directory.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def kills(directory: Path) -> int:
    """How many processes the kernel has killed there for want of memory."""
    file = "memory.oom_control" if _version_1() else "memory.events"
    for line in (directory / file).read_text(encoding="ascii").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    raise RuntimeError(f"{directory / file} does not tell of kills")

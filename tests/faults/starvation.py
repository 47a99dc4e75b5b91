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
_STEP = 1 << 20  # bytes


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


def take_away(directory: Path) -> None:
    """Leaves its processes less than they have, or about a mebibyte more where that cannot be done.

    Version 2 then kills. Version 1 refuses such a limit, and kills when they want more.
    """
    if not _version_1():
        (directory / "memory.max").write_text(str(_STEP), encoding="ascii")
        return
    (directory / "memory.force_empty").write_text("0", encoding="ascii")  # of what files have in memory
    most = int((directory / "memory.usage_in_bytes").read_text(encoding="ascii")) + _STEP
    with contextlib.suppress(OSError):
        while most > 0:
            (directory / "memory.limit_in_bytes").write_text(str(most), encoding="ascii")
            most -= _STEP


def kills(directory: Path) -> int:
    """How many processes the kernel has killed there for want of memory."""
    file = "memory.oom_control" if _version_1() else "memory.events"
    for line in (directory / file).read_text(encoding="ascii").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    raise RuntimeError(f"{directory / file} does not tell of kills")

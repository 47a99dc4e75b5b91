"""Which process owns which lab, so that only what a dead one has left behind is ever removed.

Everything of a lab carries its label: the owner's pid, and for a further lab of the same process a
serial number. A pid alone is reused in time, so the lab's state directory has the owner's start time in
its name too: making that directory, the first step of a lab, is what claims the label, in one system
call. /run is root's alone, hence a predictable name is safe there, and a reboot empties it.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from . import bpffs

PREFIX = "ramlab-"
STATE_ROOT = Path("/run/ramlab")

_LABEL = re.compile(r"ramlab-(\d+(?:\.\d+)?)(?:-.*)?")
_STATE = re.compile(r"(\d+(?:\.\d+)?)-(\d+)")


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the program's name, may itself hold blanks and brackets: count from its end.
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def claim() -> tuple[str, Path]:
    """Make the state directory of a new lab of this process; return the lab's label and the directory."""
    STATE_ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    pid = os.getpid()
    started = start_time(pid)
    for serial in itertools.count():
        label = f"{pid}.{serial}" if serial else f"{pid}"
        path = STATE_ROOT / f"{label}-{started}"
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            return label, path
    raise AssertionError("unreachable")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Nobody else is in here meanwhile: of several that start at once one removes what is stale."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):  # there is no lab yet, so nothing of one either
            lock = os.open(STATE_ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def release(label: str) -> None:
    """Remove the state directories of a label: the last step of a lab."""
    for path, _ in _states(label):
        bpffs.unmount(path)
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # another lab is still there
        STATE_ROOT.rmdir()


def label_of(name: str) -> str | None:
    """Return the label in the name of a namespace or control group, None when it is no lab's."""
    match = _LABEL.fullmatch(name)
    return match[1] if match else None


def claimed() -> set[str]:
    """Return the labels of all state directories, of live labs and dead ones."""
    if not STATE_ROOT.is_dir():
        return set()
    return {match[1] for path in STATE_ROOT.iterdir() if (match := _STATE.fullmatch(path.name))}


def is_live(label: str) -> bool:
    """Tell whether the process that claimed the label still runs."""
    running = start_time(int(label.split(".")[0]))
    return running is not None and any(started == running for _, started in _states(label))


def _states(label: str) -> list[tuple[Path, int]]:
    if not STATE_ROOT.is_dir():
        return []
    matches = ((path, _STATE.fullmatch(path.name)) for path in STATE_ROOT.iterdir())
    return [(path, int(match[2])) for path, match in matches if match and match[1] == label]

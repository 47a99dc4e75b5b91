"""Who has locked what, by which an instance says that it looks after a directory (flock(2))."""

from __future__ import annotations

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")


def holders(text: str) -> dict[str, int]:
    """What somebody has locked as a whole, as proc_locks(5) names it, to the process that has."""
    lines = [line.split() for line in text.splitlines()]
    return {words[5]: int(words[4]) for words in lines if len(words) >= 6 and words[1] == "FLOCK"}


def locked() -> dict[str, int]:
    """That of this host. Raises OSError."""
    return holders(_LOCKS.read_text(encoding="ascii", errors="replace"))


def name_of(path: Path) -> str:
    """A file as proc_locks(5) names it. Raises OSError."""
    status = path.stat()
    return f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"


def holder(path: Path) -> int | None:
    """The process that has locked a file; None where that cannot be known."""
    try:
        found = locked().get(name_of(path))
    except OSError:
        return None
    return found if found is not None and found > 0 else None  # others are of another PID namespace

"""Telling whether a file has changed, without reading it."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

FileMark: TypeAlias = "tuple[int, int, int, int] | None"
"""Device, inode, time of the last change in nanoseconds, size in bytes; None: it could not be looked at."""


def mark_of(path: Path) -> FileMark:
    """Of a file as it is now."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

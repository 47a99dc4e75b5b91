"""Who may change a file that root acts upon."""

from __future__ import annotations

from pathlib import Path


def writable_by_others(path: Path) -> Path | None:
    """What, of a file and the directories above it, somebody else than root may change; None: nothing."""
    real = path.resolve()
    for part in (real, *real.parents):
        status = part.stat()
        if status.st_uid != 0 or status.st_mode & 0o022:
            return part
    return None

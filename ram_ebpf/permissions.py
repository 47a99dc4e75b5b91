"""Who may change a file that root acts upon."""

from __future__ import annotations

import stat
from pathlib import Path


def writable_by_others(path: Path) -> Path | None:
    """What, of a file and the directories above it, somebody else than root may change; None: nothing."""
    real = path.resolve()
    for part in (real, *real.parents):
        status = part.stat()
        # In a directory such as /tmp nobody but root can remove or rename what is root's.
        keeps = part != real and status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or (status.st_mode & 0o022 and not keeps):
            return part
    return None

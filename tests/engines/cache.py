"""Where what these tests fetch and build is kept: outside the repository, until somebody removes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

VARIABLE = "RAM_EBPF_ENGINES_CACHE"
_DEFAULT = "/var/cache/ram-ebpf-engines"


def directory() -> Path:
    """Return the cache's directory. What is in there is run as root, so nobody else may have written it."""
    path = Path(os.environ.get(VARIABLE) or _DEFAULT)
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise PermissionError(f"{path} is not a directory that only root can write to")
    return path


def once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a directory of the cache, which `make` fills when it is not there yet."""
    target = directory() / name
    if target.exists():
        return target
    # One at a time: two runs at once would fetch and build the same. By name, as one may need another.
    with (directory() / f".lock-{name}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            # Beside its place and moved there whole, so that a run that is broken off leaves nothing halfway.
            unfinished = Path(tempfile.mkdtemp(dir=directory(), prefix=".new-"))
            try:
                unfinished.chmod(0o755)
                make(unfinished)
                unfinished.rename(target)
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
    return target

"""Files that an instance leaves to the next one: each policy file has its own; only root's are believed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

# RAM_EBPF_STATE moves it, for hosts whose /var is read-only and for tests.
DIRECTORY = Path(os.environ.get("RAM_EBPF_STATE") or "/var/lib/ram-ebpf")


def key_of(policy: str | None) -> str:
    """What is in the names of files about a policy file; None: about the built-in policy."""
    name = b"" if policy is None else os.fsencode(Path(policy).absolute())
    return hashlib.sha256(name).hexdigest()[:16]


def read(path: Path, most: int = -1) -> bytes | None:
    """Up to `most` bytes of one, all if that is less than 0; None where it is not root's alone to write.

    Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            return None
        return file.read(most)


def write(path: Path, data: bytes, sync: bool) -> None:
    """Writes one anew, for root alone to read: whoever reads it finds the old one or all of the new one.

    `sync`: also after a power cut. Raises OSError.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as aside:
        try:
            aside.write(data)
            aside.flush()
            if sync:
                os.fsync(aside.fileno())
            Path(aside.name).replace(path)
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise

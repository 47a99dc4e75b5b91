"""The last policy that was enforced, kept on disk: for a start at which the policy file itself is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from ram_ebpf.policy.catalogue import Catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.model import Policy

# RAM_EBPF_STATE moves it, for hosts whose /var is read-only and for tests.
DIRECTORY = Path(os.environ.get("RAM_EBPF_STATE") or "/var/lib/ram-ebpf")


def place_of(file: str, directory: Path = DIRECTORY) -> Path:
    """Where the copy of a policy file is kept; each file has its own."""
    name = hashlib.sha256(os.fsencode(Path(file).absolute())).hexdigest()[:16]
    return directory / f"policy-{name}.yaml"


def is_kept(policy: Policy, directory: Path = DIRECTORY) -> bool:
    """Whether it was read from such a copy."""
    return bool(policy.file) and Path(policy.file).parent == directory


def keep(policy: Policy, directory: Path = DIRECTORY) -> None:
    """Keeps a copy of the file that a policy was read from. Raises OSError where that cannot be.

    If the file has changed since it was read, the copy stays as it was: the change is a policy of its own.
    """
    if not policy.file:
        return
    data = Path(policy.file).read_bytes()
    if hashlib.sha256(data).hexdigest() != policy.source.digest:
        return
    place = place_of(policy.file, directory)
    with contextlib.suppress(OSError):
        if place.read_bytes() == data:
            return
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as aside:
        try:
            aside.write(data)
            aside.flush()
            os.fsync(aside.fileno())
            Path(aside.name).replace(place)
        except BaseException:
            Path(aside.name).unlink(missing_ok=True)
            raise


def load(file: str, catalogue: Catalogue, directory: Path = DIRECTORY) -> Policy | None:
    """The policy that is kept of a file; None where there is none, or it is not root's alone to write.

    Its places are those of the copy. Raises PolicyErrors where this version finds it wrong.
    """
    place = place_of(file, directory)
    try:
        with place.open("rb") as copy:
            status = os.fstat(copy.fileno())
            if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
                return None
            data = copy.read()
    except OSError:
        return None
    return parse_policy(data, str(place), catalogue)

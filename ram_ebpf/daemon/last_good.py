"""The last policy that was enforced, kept on disk: for a start at which the policy file itself is wrong."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ram_ebpf.daemon import kept_files
from ram_ebpf.daemon.kept_files import DIRECTORY
from ram_ebpf.policy.enforced import PolicyLike

if TYPE_CHECKING:
    from ram_ebpf.policy.catalogue import Catalogue
    from ram_ebpf.policy.model import Policy


def place_of(file: str, directory: Path = DIRECTORY) -> Path:
    """Where the copy of a policy file is kept; each file has its own."""
    return directory / f"policy-{kept_files.key_of(file)}.yaml"


def is_kept(policy: PolicyLike, directory: Path = DIRECTORY) -> bool:
    """Whether it was read from such a copy."""
    return bool(policy.file) and Path(policy.file).parent == directory


def keep(policy: PolicyLike, directory: Path = DIRECTORY) -> None:
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
    kept_files.write(place, data, sync=True)


def load(file: str, catalogue: Catalogue, directory: Path = DIRECTORY) -> Policy | None:
    """The policy that is kept of a file; None where there is none, or it is not root's alone to write.

    Its places are those of the copy. Raises PolicyErrors where this version finds it wrong.
    """
    place = place_of(file, directory)
    try:
        data = kept_files.read(place)
    except OSError:
        return None
    if data is None:
        return None
    from ram_ebpf.policy.loader import parse_policy

    return parse_policy(data, str(place), catalogue)

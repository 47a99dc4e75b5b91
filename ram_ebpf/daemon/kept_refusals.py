"""What was refused, kept on disk from one start to the next: a file for each policy file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ram_ebpf.daemon import kept_files
from ram_ebpf.daemon.kept_files import DIRECTORY
from ram_ebpf.suggestions.refused import Refused, from_json
from ram_ebpf.suggestions.summary import Forgotten

_VERSION = 1
_LARGEST = 16 << 20  # bytes; 2000 entries are 2 MB at most


@dataclass
class Kept:
    """What is in one file, or what an instance answers."""

    policy: str | None
    """The policy file; None: the built-in policy was enforced."""
    entries: list[Refused]
    forgotten: Forgotten


class BusyError(Exception):
    """Another instance keeps what it refuses there."""


class Keeper:
    """The file of one policy, which no other instance may write meanwhile."""

    def __init__(self, policy: str | None, directory: Path = DIRECTORY) -> None:
        """`policy`: the name of its file. Raises OSError, or BusyError where another instance keeps it."""
        self._policy = None if policy is None else str(Path(policy).absolute())
        name = kept_files.key_of(policy)
        self.path = directory / f"refused-{name}.json"
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(
            directory / f"refused-{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise BusyError(f"another instance with the same policy writes {self.path}") from None

    def load(self) -> Kept | None:
        """What is there; None where there is nothing, or nothing that can be believed."""
        return load(self.path)

    def save(self, entries: Iterable[Refused], forgotten: Forgotten) -> None:
        """Writes it anew, for root alone to read. Raises OSError."""
        data = json.dumps(told(self._policy, entries, forgotten))
        # Not synced: after a power cut there is what was there before, or nothing, and neither does harm.
        kept_files.write(self.path, data.encode(), sync=False)

    def close(self) -> None:
        """Lets others write."""
        os.close(self._lock)


def load(path: Path) -> Kept | None:
    """What is in one file; None where there is none, it is not root's alone to write, or it is not such a
    file."""
    try:
        data = kept_files.read(path, _LARGEST + 1)
        if data is None or len(data) > _LARGEST:
            return None
        return read(json.loads(data))
    except (OSError, ValueError, RecursionError):
        return None


def read(value: object) -> Kept | None:
    """From what a file or an instance says; None where that is something else. Entries that are wrong are
    left out."""
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        return None
    policy, entries = value.get("policy"), value.get("entries")
    if not isinstance(policy, str | None) or not isinstance(entries, list):
        return None
    found = [refused for entry in entries if (refused := from_json(entry)) is not None]
    return Kept(policy, found, _forgotten(value.get("forgotten")))


def _forgotten(value: Any) -> Forgotten:
    made = Forgotten()
    if isinstance(value, dict):
        with contextlib.suppress(KeyError, TypeError, ValueError):
            made = Forgotten(int(value["count"]), int(value["last"]), str(value["scope"])[:300])
    return made


def told(policy: str | None, entries: Iterable[Refused], forgotten: Forgotten) -> dict[str, Any]:
    """What read() reads, for the file and for the control socket."""
    return {
        "version": _VERSION,
        "policy": policy,
        "forgotten": asdict(forgotten),
        "entries": [refused.to_json() for refused in entries],
    }


def load_all(directory: Path = DIRECTORY) -> Iterator[Kept]:
    """Those of all policies. Raises PermissionError where they may not be read."""
    try:
        paths = sorted(directory.iterdir())  # glob() finds nothing where it may not look
    except FileNotFoundError:
        return
    for path in paths:
        if path.name.startswith("refused-") and path.suffix == ".json":
            kept = load(path)
            if kept is not None:
                yield kept

"""Whether ram-ebpf was upgraded, as its files say, since this process was started from them.

A process that is started now is another version then, and what the two would say to each other need not mean
the same to both.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]

# What defines the classes that go from policy_process.py to the daemon and back, what they mean, and what
# they are made from. The first one has the version.
_EXCHANGED = (
    "__init__.py",
    "daemon/kept_reading.py",
    "daemon/policy_process.py",
    "daemon/reading.py",
    "dns/data",
    "dns/encrypted.py",
    "dns/encrypted_names.py",
    "policy",
    "policy/data",
    "scopes/cgroup.py",
    "scopes/words.py",
)


def files() -> list[Path]:
    """Those that count, as far as they are there."""
    found: list[Path] = []
    for name in _EXCHANGED:
        path = _PACKAGE / name
        found += sorted(path.glob("*.*")) if path.is_dir() else [path]
    return found


def _digest() -> bytes:
    """By what is in them, not by their times: a package that is installed once more is no upgrade."""
    found = hashlib.blake2b()
    for path in files():
        try:
            data = path.read_bytes()
        except OSError:  # it is no more
            continue
        found.update(b"%s %d\n" % (os.fsencode(path.name), len(data)))
        found.update(data)
    return found.digest()


@functools.cache
def digest_at_start() -> bytes:
    """Of the files that this process runs, if remember_start() was called in time."""
    return _digest()


def remember_start() -> None:
    """The files are those that this process runs. It is the first call that counts."""
    digest_at_start()


def was_upgraded() -> bool:
    """Whether they have changed since. Takes a millisecond or two."""
    return _digest() != digest_at_start()

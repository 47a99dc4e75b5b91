"""What reading a policy came to, kept for a start at which nothing has changed.

Reading a policy takes a process and 0.3 seconds, with 100 000 rules 3 seconds. A file is believed that is
root's alone to write, in a directory that is so too, and was made of the same bytes by the same code. What
is wrong with it costs that time and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import pickle
import stat
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ram_ebpf.daemon import kept_files, upgrade
from ram_ebpf.daemon.kept_files import DIRECTORY
from ram_ebpf.daemon.reading import PolicyReader, Read, ReaderError, Wanted
from ram_ebpf.policy.encoding import MAX_POLICY_BYTES

if TYPE_CHECKING:
    from ram_ebpf.policy.ruleset import RuleSet
    from ram_ebpf.policy.terms import Terms

_log = logging.getLogger(__name__)

_HASH = hashlib.blake2b
_SIZE = _HASH().digest_size
# Libraries that decide what a policy means.
_LIBRARIES = ("idna", "pydantic", "pydantic_core", "yaml")


def place_of(wanted: Wanted, directory: Path = DIRECTORY) -> Path:
    """Where it is kept; each policy file has its own."""
    return directory / f"policy-{kept_files.key_of(_path(wanted))}.pickle"


def _path(wanted: Wanted) -> str:
    assert wanted.file is not None
    return wanted.file if wanted.directory is None else str(Path(wanted.directory, wanted.file))


def _libraries() -> str:
    """By their files, which is sooner known than their versions."""
    found = []
    for name in _LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            status = Path(spec.origin).stat()
            found.append(f"{spec.origin} {status.st_mtime_ns} {status.st_size}")
    return "\n".join(found)


def _key(wanted: Wanted, policy: str) -> bytes:
    """Of all that decides what is read. `policy`: the SHA-256 of the file, in hexadecimal."""
    words = (wanted.file, wanted.directory, wanted.scopes, wanted.posture)
    found = _HASH()
    for part in (sys.version, _libraries(), repr(words), policy):
        found.update(part.encode(errors="surrogateescape") + b"\0")
    found.update(upgrade.digest_at_start())
    return found.digest()


def _is_keepable(wanted: Wanted) -> bool:
    return wanted.keep and wanted.file is not None and not wanted.last_good_first


def keep(wanted: Wanted, read: Read, rules: Mapping[Terms, RuleSet], directory: Path = DIRECTORY) -> None:
    """Keeps them if the caller wants it, they are of the file itself, and all is well with it.

    A disk that is full or may not be written is no reason to fail.
    """
    if not _is_keepable(wanted) or read.problem is not None or read.policy.file != wanted.file:
        return
    data = pickle.dumps((read, dict(rules)), pickle.HIGHEST_PROTOCOL)
    head = _key(wanted, read.policy.source.digest) + _HASH(data).digest()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept_files.write(place_of(wanted, directory), head + data, sync=False)
    except OSError as error:
        _log.warning("what was read of the policy is not kept in %s: %s", directory, error)


class KeptReading:
    """As PolicyReader, of what was kept. It is not unpacked before it is asked for, which takes a while."""

    def __init__(self, wanted: Wanted, data: memoryview) -> None:
        """`data`: of somebody who is trusted."""
        self._wanted = wanted
        self._data: memoryview | None = data
        self._unpacked: tuple[Read, Mapping[Terms, RuleSet]] | None = None

    def _unpack(self) -> tuple[Read, Mapping[Terms, RuleSet]]:
        if self._unpacked is None:
            assert self._data is not None
            self._unpacked = pickle.loads(self._data)  # noqa: S301 - root's, and whole
            self._data = None
        return self._unpacked

    def read(self) -> Read:
        """The policy."""
        return self._unpack()[0]

    def rules(self, terms: Iterable[Terms]) -> dict[Terms, RuleSet]:
        """The rules that hold under these. Raises PolicyErrors or ReaderError."""
        read, rules = self._unpack()
        wanted = list(dict.fromkeys(terms))
        if all(each in rules for each in wanted):
            return {each: rules[each] for each in wanted}
        with PolicyReader(self._wanted) as reader:
            if reader.read().policy.source.digest != read.policy.source.digest:
                raise ReaderError(f"{self._wanted.file} has changed during the start: start ram-ebpf again")
            return reader.rules(wanted)

    def close(self) -> None:
        """Lets go of it."""
        self._data = self._unpacked = None


def find(wanted: Wanted, directory: Path = DIRECTORY) -> KeptReading | None:
    """What was kept of the same; None where there is nothing, or nothing that may be believed."""
    if not _is_keepable(wanted):
        return None
    upgrade.remember_start()
    place = place_of(wanted, directory)
    try:
        kept = kept_files.read(place)
        status = directory.stat()
        if kept is None or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
            _log.warning("ignoring %s: it or its directory is writable by others than root", place)
            return None
        policy = _hash_of(_path(wanted))
        head, data = kept[: 2 * _SIZE], memoryview(kept)[2 * _SIZE :]
        if policy is None or head != _key(wanted, policy) + _HASH(data).digest():
            return None
    except OSError:
        return None
    return KeptReading(wanted, data)


def _hash_of(file: str) -> str | None:
    """None where it is no regular file, or larger than a policy may be."""
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_POLICY_BYTES:
            return None
        return hashlib.sha256(opened.read(MAX_POLICY_BYTES + 1)).hexdigest()


def open_reader(wanted: Wanted) -> PolicyReader | KeptReading:
    """Of what was kept, or else a process. Raises OSError where none can be started."""
    return find(wanted) or PolicyReader(wanted)

"""Who has locked a directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ram_ebpf.dataplane import locks


def test_lines() -> None:
    text = (
        "1: POSIX  ADVISORY  WRITE 1089 00:17:1432 0 EOF\n2: FLOCK  ADVISORY  WRITE 812 00:1c:77 0 EOF\n"
        "2: -> FLOCK  ADVISORY  WRITE 9 00:1c:78 0 EOF\n\n"
    )
    assert locks.holders(text) == {"00:1c:77": 812}


def test_holder(tmp_path: Path) -> None:
    assert locks.holder(tmp_path) is None
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        assert locks.holder(tmp_path) == os.getpid()
    finally:
        os.close(directory)
    assert locks.holder(tmp_path / "gone") is None

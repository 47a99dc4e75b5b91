"""Whether the kernel tells the sockets of one cgroup from those of another is found by trying."""

from __future__ import annotations

from pathlib import Path

from ram_ebpf.dataplane.matching import Attempt, sockets_match
from ram_ebpf.scopes.cgroup import find_cgroup2_mount


def test_this_kernel_does() -> None:
    """What becomes of it where net_cls is in use is tried in guests: tests/lab/test_whole_machine.py."""
    mount = find_cgroup2_mount()
    before = sorted(mount.iterdir())
    assert sockets_match(mount)
    assert sorted(mount.iterdir()) == before


def test_where_it_cannot_be_tried(tmp_path: Path) -> None:
    assert sockets_match(tmp_path / "nothing")
    assert sockets_match(tmp_path)


def test_attempt_that_nobody_waits_for() -> None:
    mount = find_cgroup2_mount()
    before = sorted(mount.iterdir())
    attempt = Attempt(mount)
    assert sorted(mount.iterdir()) != before
    attempt.close()
    assert sorted(mount.iterdir()) == before

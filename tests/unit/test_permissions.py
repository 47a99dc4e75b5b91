"""Who may change a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ram_ebpf.permissions import writable_by_others


def test_who_else_could_change_it(tmp_path: Path) -> None:
    assert writable_by_others(Path("/usr/bin/env")) is None
    target = tmp_path / "docker-ram"
    target.touch()
    target.chmod(0o777)
    assert writable_by_others(target) == target
    (tmp_path / "link").symlink_to(target)
    assert writable_by_others(tmp_path / "link") == target
    target.chmod(0o755)
    tmp_path.chmod(0o777)
    assert writable_by_others(target) == (tmp_path if os.geteuid() == 0 else target)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's files can be safe")
def test_directory_in_which_everybody_may_make_files_of_their_own(tmp_path: Path) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    file = shared / "policy.yaml"
    file.touch(0o644)
    assert writable_by_others(shared) == shared
    assert writable_by_others(file) is None
    shared.chmod(0o777)
    assert writable_by_others(file) == shared

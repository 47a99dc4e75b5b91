"""Who may change a file."""

from __future__ import annotations

import os
from pathlib import Path

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

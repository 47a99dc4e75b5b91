"""Network namespaces are found by the processes of control groups."""

from __future__ import annotations

import os
from pathlib import Path

from ram_ebpf.dataplane.namespaces import OWN, identity
from ram_ebpf.scopes.neighbours import namespaces_of


def group(path: Path, *pids: int) -> Path:
    """As the kernel shows one."""
    path.mkdir(parents=True)
    (path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids), encoding="ascii")
    return path


def test_that_of_this_process(tmp_path: Path) -> None:
    top = group(tmp_path / "top")
    group(top / "below", os.getpid())
    found = namespaces_of([top])
    assert list(found) == [identity(OWN)]
    assert identity(found[identity(OWN)]) == identity(OWN)


def test_those_who_are_gone(tmp_path: Path) -> None:
    """0 is a process of another PID namespace; the other one has ended."""
    assert namespaces_of([group(tmp_path / "a", 0, 2**22 + 1), tmp_path / "none"]) == {}

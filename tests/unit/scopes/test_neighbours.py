"""Network namespaces are found by the processes of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ram_ebpf.dataplane.namespaces import OWN, identity
from ram_ebpf.scopes import neighbours
from ram_ebpf.scopes.neighbours import Neighbours, namespaces_of


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


class Host:
    """Processes as /proc shows them. A network namespace is a file, and known by that."""

    def __init__(self, directory: Path) -> None:
        self.proc, self.mount, self._namespaces = (directory / name for name in ("proc", "cg", "namespaces"))
        for path in (self.proc, self.mount, self._namespaces):
            path.mkdir()
        self.now = 1000.0
        self.looked_at: list[int] = []
        self.begin(1, "own", "init")
        own = identity(self._namespaces / "own")
        self._neighbours = Neighbours(own, self.mount, self.proc, lambda: self.now)
        watched = self._neighbours._identity

        def look(pid: int) -> tuple[int, int] | None:
            self.looked_at.append(pid)
            return watched(pid)

        self._neighbours._identity = look  # type: ignore[method-assign]

    def begin(self, pid: int, namespace: str, cgroup: str) -> None:
        (self.proc / f"{pid}/ns").mkdir(parents=True)
        self.change(pid, namespace, cgroup)
        (self.proc / "loadavg").write_text(f"0.00 0.00 0.00 1/100 {pid}\n")

    def change(self, pid: int, namespace: str, cgroup: str) -> None:
        (self._namespaces / namespace).touch()
        (self.proc / f"{pid}/ns/net").unlink(missing_ok=True)
        (self.proc / f"{pid}/ns/net").hardlink_to(self._namespaces / namespace)
        (self.proc / f"{pid}/cgroup").write_text(f"0::/{cgroup}\n")

    def end(self, pid: int) -> None:
        (self.proc / f"{pid}/ns/net").unlink()
        (self.proc / f"{pid}/cgroup").unlink()
        (self.proc / f"{pid}/ns").rmdir()
        (self.proc / str(pid)).rmdir()

    def found(self, *cgroups: str, seconds: float = 1.0) -> list[str]:
        """By a look that is so much later."""
        self.now += seconds
        self.looked_at.clear()
        names = {identity(path): path.name for path in self._namespaces.iterdir()}
        ways = self._neighbours.look([self.mount / cgroup for cgroup in cgroups])
        assert all(identity(way) == which for which, way in ways.items())
        return sorted(names[which] for which in ways)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_those_of_governed_processes(host: Host) -> None:
    host.begin(10, "a", "docker/a")
    host.begin(11, "a", "docker/a")
    host.begin(12, "b", "docker/b/below")
    host.begin(13, "c", "elsewhere")
    host.begin(14, "own", "docker")
    assert host.found("docker") == ["a", "b"]
    assert host.found("docker/b", "elsewhere") == ["b", "c"]
    assert host.found() == []


def test_who_begins_and_ends(host: Host) -> None:
    assert host.found("docker") == []
    host.begin(10, "a", "docker/a")
    assert host.found("docker") == ["a"]
    host.begin(11, "a", "docker/a")
    host.end(10)
    assert host.found("docker") == ["a"]
    host.end(11)
    assert host.found("docker") == []


def test_who_ends_when_nobody_begins(host: Host) -> None:
    host.begin(10, "a", "docker/a")
    assert host.found("docker") == ["a"]
    assert host.found("docker", seconds=20) == ["a"]
    host.end(10)
    assert host.found("docker") == []


def test_new_process_that_becomes_a_container_in_time(host: Host) -> None:
    """As runc does: a process, then its control group, then its namespace."""
    assert host.found("docker") == []
    host.begin(10, "own", "init")
    assert host.found("docker") == []
    host.change(10, "own", "docker/a")
    assert host.found("docker", seconds=5) == []
    host.change(10, "a", "docker/a")
    assert host.found("docker", seconds=5) == ["a"]


def test_old_process_that_changes_its_namespace(host: Host) -> None:
    host.begin(10, "own", "docker/a")
    assert host.found("docker") == []
    assert host.found("docker", seconds=15) == []
    host.change(10, "a", "docker/a")
    assert host.found("docker") == []
    assert host.found("docker", seconds=60) == ["a"]


def test_nobody_is_looked_at_when_nobody_begins(host: Host) -> None:
    for pid in range(10, 20):
        host.begin(pid, "own", "docker/a")
    host.begin(20, "b", "docker/b")
    assert host.found("docker") == ["b"]
    assert host.looked_at == [1, *range(10, 21)]
    assert host.found("docker", seconds=11) == ["b"]
    assert host.looked_at == [20]
    host.begin(21, "own", "init")
    assert host.found("docker") == ["b"]
    assert host.looked_at == [21]


def test_too_many_processes(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest ones are looked at, and when these have settled all others."""
    monkeypatch.setattr(neighbours, "_MOST", 3)
    for pid in range(10, 20):
        host.begin(pid, f"n{pid}", "docker/a")
    assert host.found("docker") == ["n17", "n18", "n19"]
    assert host.found("docker", seconds=11) == [f"n{pid}" for pid in range(14, 20)]
    host.found("docker")
    assert host.found("docker") == [f"n{pid}" for pid in range(10, 20)]


def test_control_group_by_another_mount(tmp_path: Path, host: Host) -> None:
    """Whose path is not in /proc: then its own files say who is in there."""
    elsewhere = group(tmp_path / "elsewhere", os.getpid())
    ways = Neighbours((0, 0), host.mount, host.proc).look([elsewhere])
    assert list(ways) == [identity(OWN)]
    assert Neighbours(identity(OWN), host.mount, host.proc).look([elsewhere]) == {}

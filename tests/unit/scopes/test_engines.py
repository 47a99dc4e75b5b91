"""Finding engines in a made-up /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from ram_ebpf.policy.scope import Engine
from ram_ebpf.scopes import engines
from ram_ebpf.scopes.engines import FoundEngine, find_engines

MOUNT = Path("/sys/fs/cgroup")
FIRST = 4194305  # the kernel's largest process id and one more: no such process can be


class Proc:
    """A directory that stands for /proc."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        for name in ("self", "sys", "cmdline", "4x"):
            (path / name).mkdir()

    def add(
        self, pid: int, comm: str | bytes, cgroup: str | None = "/system.slice/x.service", *words: str
    ) -> None:
        directory = self.path / str(pid)
        directory.mkdir()
        (directory / "comm").write_bytes((comm if isinstance(comm, bytes) else comm.encode()) + b"\n")
        (directory / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
        if cgroup is not None:
            (directory / "cgroup").write_text(f"1:name=systemd:/other\n0::{cgroup}\n")

    def of_process(self, pid: int, mount: Path | None = None, *_: object, **__: object) -> Path | None:
        """Stands for the function of this name, which reads the real /proc."""
        try:
            lines = (self.path / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return None
        return (mount or MOUNT) / lines[-1].removeprefix("0::/")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    fake = Proc(tmp_path / "proc")
    monkeypatch.setattr(engines, "find_cgroup2_mount", lambda: MOUNT)
    monkeypatch.setattr(engines, "of_process", fake.of_process)
    return fake


def test_nothing_runs(proc: Proc) -> None:
    proc.add(1, "systemd", "/init.scope")
    assert find_engines(Engine.ALL, proc.path) == []


@pytest.mark.parametrize(
    ("comm", "engine"),
    [("dockerd", Engine.DOCKER), ("containerd", Engine.CONTAINERD), ("crio", Engine.CRIO)],
)
def test_daemons(proc: Proc, comm: str, engine: Engine) -> None:
    proc.add(70, comm, "/system.slice/engine.service", f"/usr/bin/{comm}")
    expected = [FoundEngine(engine, 70, MOUNT / "system.slice/engine.service")]
    for wanted in Engine:
        assert find_engines(wanted, proc.path) == (expected if wanted in (engine, Engine.ALL) else [])


@pytest.mark.parametrize(
    "comm", ["docker", "dockerd-rootless", "containerd-shim", "mydockerd", "DOCKERD", ""]
)
def test_other_commands(proc: Proc, comm: str) -> None:
    proc.add(70, comm)
    assert find_engines(Engine.ALL, proc.path) == []


def test_a_command_that_is_not_utf8(proc: Proc) -> None:
    proc.add(70, b"\xff\xfe")
    proc.add(71, "dockerd")
    assert [found.pid for found in find_engines(Engine.ALL, proc.path)] == [71]


def test_in_the_order_of_their_numbers(proc: Proc) -> None:
    for pid, comm in ((1000, "dockerd"), (99, "containerd"), (200, "dockerd")):
        proc.add(pid, comm)
    assert [found.pid for found in find_engines(Engine.ALL, proc.path)] == [99, 200, 1000]
    assert [found.pid for found in find_engines(Engine.DOCKER, proc.path)] == [200, 1000]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("/usr/bin/podman", "system", "service", "--time", "0"), True),
        (("podman", "--log-level=info", "system", "service"), True),
        (("podman", "pull", "alpine"), False),
        (("podman", "system", "prune"), False),
        (("podman", "run", "system-service"), False),
        ((), False),
    ],
)
def test_podman_only_as_a_service(proc: Proc, words: tuple[str, ...], found: bool) -> None:
    proc.add(70, "podman", "/user.slice/podman.service", *words)
    for wanted in (Engine.PODMAN, Engine.ALL):
        assert [item.engine for item in find_engines(wanted, proc.path)] == [Engine.PODMAN] * found


def test_processes_that_vanish(proc: Proc) -> None:
    (proc.path / "60").mkdir()  # gone before its name was read
    proc.add(61, "dockerd", None)  # before its cgroup was
    proc.add(62, "podman", "/x", "podman", "system", "service")
    (proc.path / "62" / "cmdline").unlink()  # before its words were
    proc.add(63, "dockerd", "/docker.service")
    assert [found.pid for found in find_engines(Engine.ALL, proc.path)] == [63]


def test_an_engine_in_the_root_cgroup_is_found(proc: Proc) -> None:
    """That it cannot be governed is for the selection to say."""
    proc.add(70, "dockerd", "/")
    assert find_engines(Engine.ALL, proc.path) == [FoundEngine(Engine.DOCKER, 70, MOUNT)]


def test_the_cgroup_is_read_from_the_same_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument `proc` holds for all that is read."""
    proc = Proc(tmp_path / "proc")
    monkeypatch.setattr(engines, "find_cgroup2_mount", lambda: MOUNT)
    proc.add(FIRST, "dockerd", "/docker.service")
    assert find_engines(Engine.ALL, proc.path) == [
        FoundEngine(Engine.DOCKER, FIRST, MOUNT / "docker.service")
    ]

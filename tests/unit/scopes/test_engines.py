"""Finding engines in a made-up /proc."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.policy.scope import Engine
from ram_ebpf.scopes import engines
from ram_ebpf.scopes.engines import EngineTarget, FoundEngine, find_engines

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
        self.started(pid, 1)
        if cgroup is not None:
            (directory / "cgroup").write_text(f"1:name=systemd:/other\n0::{cgroup}\n")

    def started(self, pid: int, ticks: int) -> None:
        """So many ticks of the clock after the boot."""
        fields = ["S", *["0"] * 18, str(ticks), *["0"] * 30]
        (self.path / str(pid) / "stat").write_text(f"{pid} (a) b (c)) {' '.join(fields)}\n")

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


@pytest.fixture(autouse=True)
def no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on this machine is no engine of a test."""
    monkeypatch.setattr(find_engines, "__defaults__", (Path("/proc"), tmp_path / "nothing"))


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


# --- by pid files, sockets and units


class Listener:
    """Whoever listens at an engine's socket. The kernel says that it is this process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.settimeout(0.2)
        self.inode = os.fstat(self._socket.fileno()).st_ino

    def was_disturbed(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Stands for /run. Paths of sockets are short."""
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


@pytest.fixture
def listener(run: Path) -> Iterator[Listener]:
    made = Listener(run / "docker.sock")
    yield made
    made.close()


@pytest.mark.parametrize(
    ("name", "engine"),
    [("docker.pid", Engine.DOCKER), ("crio.pid", Engine.CRIO), ("crio/crio.pid", Engine.CRIO)],
)
def test_by_its_pid_file(proc: Proc, run: Path, name: str, engine: Engine) -> None:
    """Whatever the program is called."""
    proc.add(70, "wrapped", "/engine.service")
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("70\n")
    expected = [FoundEngine(engine, 70, MOUNT / "engine.service")]
    for wanted in Engine:
        assert find_engines(wanted, proc.path, run) == (expected if wanted in (engine, Engine.ALL) else [])


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "71", "9" * 5000, "\u0667\u0660", "70 71"])
def test_pid_file_that_says_nothing(proc: Proc, run: Path, text: str) -> None:
    proc.add(70, "wrapped")
    (run / "docker.pid").write_text(text)
    assert find_engines(Engine.ALL, proc.path, run) == []


def test_pid_file_that_was_left_behind(proc: Proc, run: Path) -> None:
    """Its number is that of a process which somebody has started since."""
    proc.add(70, "stranger")
    (run / "docker.pid").write_text("70")
    assert [found.pid for found in find_engines(Engine.ALL, proc.path, run)] == [70]
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    proc.started(70, int((now + 60) * os.sysconf("SC_CLK_TCK")))
    assert find_engines(Engine.ALL, proc.path, run) == []


def test_pid_file_of_an_engine_that_was_found_already(proc: Proc, run: Path) -> None:
    proc.add(70, "dockerd", "/engine.service")
    (run / "docker.pid").write_text("70")
    assert [found.pid for found in find_engines(Engine.ALL, proc.path, run)] == [70]


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("docker.sock", Engine.DOCKER),
        ("containerd/containerd.sock", Engine.CONTAINERD),
        ("crio/crio.sock", Engine.CRIO),
        ("podman/podman.sock", Engine.PODMAN),
    ],
)
def test_by_who_listens_at_its_socket(
    proc: Proc, run: Path, name: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who it is the kernel says: this process, which is not an engine only because it has our number."""
    listener = Listener(run / name)
    proc.add(os.getpid(), "wrapped", "/engine.service")
    assert find_engines(Engine.ALL, proc.path, run) == []
    monkeypatch.setattr(os, "getpid", lambda: FIRST)
    ours = [found.pid for found in find_engines(engine, proc.path, run)]
    assert [found.engine for found in find_engines(Engine.ALL, proc.path, run)] == [engine]
    assert len(ours) == 1
    listener.close()
    assert find_engines(Engine.ALL, proc.path, run) == []  # the file is still there


def test_an_engine_that_was_found_is_not_disturbed(proc: Proc, run: Path, listener: Listener) -> None:
    proc.add(70, "dockerd")
    find_engines(Engine.ALL, proc.path, run)
    assert not listener.was_disturbed()


def unix_sockets(proc: Proc, path: Path | str, inode: int, flags: str = "00010000") -> None:
    (proc.path / "net").mkdir(exist_ok=True)
    (proc.path / "net" / "unix").write_text(
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03 4242\n"
        f"0000000000000000: 00000002 00000000 {flags} 0001 01 {inode} {path}\n"
    )


def init_has(proc: Proc, *inodes: int) -> None:
    directory = proc.path / "1" / "fd"
    directory.mkdir(parents=True)
    for number, inode in enumerate(inodes):
        (directory / str(number)).symlink_to(f"socket:[{inode}]")
    (directory / "99").symlink_to("/dev/null")


def test_an_engine_that_was_stopped_is_not_started(proc: Proc, run: Path, listener: Listener) -> None:
    """The service manager listens for it, and would start it for whoever connects."""
    unix_sockets(proc, run / "docker.sock", listener.inode)
    init_has(proc, 17, listener.inode)
    assert find_engines(Engine.ALL, proc.path, run) == []
    assert not listener.was_disturbed()


def test_sockets_of_others_are_no_reason_not_to_ask(proc: Proc, run: Path, listener: Listener) -> None:
    unix_sockets(proc, run / "docker.sock", listener.inode)
    init_has(proc, 17, 4242)
    find_engines(Engine.DOCKER, proc.path, run)
    assert listener.was_disturbed()


@pytest.mark.parametrize(
    ("path", "flags", "expected"),
    [
        ("/run/docker.sock", "00010000", {"77"}),
        ("/var/run/docker.sock", "00010000", {"77"}),
        ("/run/docker.sock", "00000000", set()),  # the end of a connection
        ("/run/other.sock", "00010000", set()),
    ],
)
def test_who_listens(proc: Proc, path: str, flags: str, expected: set[str]) -> None:
    unix_sockets(proc, path, 77, flags)
    assert engines._listening(Path("/run/docker.sock"), proc.path) == expected


def test_nobody_says_who_listens(proc: Proc) -> None:
    assert engines._listening(Path("/run/docker.sock"), proc.path) == set()
    assert engines._sockets_of_init(proc.path) == set()


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cgroup"
    directory.mkdir()
    monkeypatch.setattr(engines, "find_engines", lambda _: [])
    return directory


@pytest.mark.parametrize(
    ("unit", "engine"),
    [
        ("docker.service", Engine.DOCKER),
        ("containerd.service", Engine.CONTAINERD),
        ("crio.service", Engine.CRIO),
        ("podman.service", Engine.PODMAN),
    ],
)
def test_unit_of_an_engine(mount: Path, unit: str, engine: Engine) -> None:
    """It is governed before anything runs in it, and let go of when it goes."""
    directory = mount / "system.slice" / unit
    targets = {wanted: EngineTarget(wanted, mount) for wanted in Engine}
    assert {target.label for target in targets.values()} == {f"engine {wanted.value}" for wanted in Engine}
    assert not any(target.find() for target in targets.values())
    directory.mkdir(parents=True)
    for wanted, target in targets.items():
        assert target.find().cgroups == ({directory} if wanted in (engine, Engine.ALL) else set())
    directory.rmdir()
    assert not any(target.find() for target in targets.values())


def test_engines_come_and_go(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = EngineTarget(Engine.ALL, mount)
    found: list[FoundEngine] = []
    monkeypatch.setattr(engines, "find_engines", lambda _: found)
    found.append(FoundEngine(Engine.DOCKER, 7, mount / "a"))
    found.append(FoundEngine(Engine.CRIO, 8, mount / "b"))
    assert target.find().cgroups == {mount / "a", mount / "b"}
    del found[0]
    assert target.find().cgroups == {mount / "b"}


def test_an_engine_never_stands_for_the_whole_host(mount: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes later into the root cgroup is not governed: everything else would be."""
    monkeypatch.setattr(engines, "find_engines", lambda _: [FoundEngine(Engine.DOCKER, 7, mount)])
    assert not EngineTarget(Engine.DOCKER, mount).find()

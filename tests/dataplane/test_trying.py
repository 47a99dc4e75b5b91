"""Trying what the kernel can do, in cgroups and network namespaces that are thrown away."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.dataplane import cache, cgroups, child, features, namespaces, syscall
from ram_ebpf.dataplane.bytecode import Program
from ram_ebpf.dataplane.programs import CGROUP_HOOKS, PROGRAM_SETS, Hook
from ram_ebpf.dataplane.syscall import AttachType, MapType, ProgramType
from ram_ebpf.doctor.kernel import HELPERS
from ram_ebpf.scopes.cgroup import find_cgroup2_mount
from tests.lab.pace import PACE

MOUNT = find_cgroup2_mount()


@pytest.fixture
def program() -> Iterator[int]:
    fd = features.load_small(ProgramType.CGROUP_SKB, AttachType.INET_EGRESS)
    yield fd
    os.close(fd)


def attach(cgroup: Path, program: int, flags: int) -> None:
    fd = os.open(cgroup, os.O_RDONLY)
    try:
        syscall.program_attach(fd, program, AttachType.INET_EGRESS, flags)
    finally:
        os.close(fd)


@pytest.mark.parametrize("map_type", MapType)
def test_small_maps(map_type: MapType) -> None:
    features.try_map(map_type)


@pytest.mark.parametrize("hook", CGROUP_HOOKS, ids=lambda hook: hook.label)
def test_small_programs(hook: Hook) -> None:
    os.close(features.load_small(hook.program_type, hook.attach_type))


def test_machine_code(program: int) -> None:
    info = syscall.program_info(program)
    assert (info.type, info.name) == (ProgramType.CGROUP_SKB, "ram_probe")
    interpreted = Path("/proc/sys/net/core/bpf_jit_enable").read_text(encoding="ascii").strip() == "0"
    assert (info.machine_code == 0) == interpreted


def test_helpers_that_are_needed() -> None:
    """What the doctor asks for is what the programs call, without what they can do without."""
    called: dict[ProgramType, set[int]] = {}
    for programs in PROGRAM_SETS:
        bytecode, _ = cache.load_or_compile(programs.source, ())
        for hook in programs.hooks():
            called.setdefault(hook.program_type, set()).update(calls(bytecode.programs[hook.function]))
    assert called == {kind: set(HELPERS[kind]) for kind in called}


def calls(program: Program) -> Iterator[int]:
    """The helpers that a program calls, by their numbers (BPF_CALL without a pseudo register)."""
    for opcode, registers, _, immediate in struct.iter_unpack("=BBhi", program.instructions):
        if opcode == 0x85 and registers >> 4 == 0:
            yield immediate


# --- children


def test_status_of_a_child() -> None:
    assert child.status_of(lambda: 7) == 7


def test_child_that_nobody_waits_for() -> None:
    def sleep() -> int:
        time.sleep(60)
        return 0

    ended = child.Child(sleep)
    ended.close()
    assert ended.wait() == -signal.SIGKILL


def test_nothing_of_a_child_gets_out(tmp_path: Path) -> None:
    def fail() -> int:
        raise KeyboardInterrupt

    with open(tmp_path / "log", "w") as log:  # noqa: PTH123
        assert child.status_of(fail) == child.RAISED
        log.write("once")
    assert (tmp_path / "log").read_text() == "once"


def test_error_of_a_child() -> None:
    assert child.error_of(lambda: None) is None
    error = child.error_of(lambda: os.close(-1))
    assert error is not None
    assert error.errno == errno.EBADF
    with pytest.raises(RuntimeError, match="ended with -9"):
        child.error_of(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_child_ends_when_the_wait_is_interrupted(tmp_path: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def sleep() -> int:
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)
        return 0

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3 * PACE)
    try:
        with pytest.raises(KeyboardInterrupt):
            child.status_of(sleep)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


# --- cgroups


def test_throwaway_cgroup(program: int) -> None:
    before = sorted(MOUNT.iterdir())
    with cgroups.throwaway(MOUNT) as directory:
        attach(directory, program, syscall.F_ALLOW_MULTI)
        assert directory.parent == MOUNT
    assert sorted(MOUNT.iterdir()) == before


def test_throwaway_cgroup_that_is_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt):
        with cgroups.throwaway(MOUNT):
            raise KeyboardInterrupt
    assert not list(MOUNT.glob("ram-ebpf-try-*"))


def test_what_a_killed_process_has_left_is_removed() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with cgroups.throwaway(MOUNT) as directory:
                os.write(writer, str(directory).encode())
                time.sleep(60)
        finally:
            os._exit(1)
    left = Path(os.read(reader, 4096).decode())
    with cgroups.throwaway(MOUNT) as directory:
        assert directory != left
        assert left.is_dir()  # somebody is at it
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert left.is_dir()
    with cgroups.throwaway(MOUNT):
        assert not left.exists()
    os.close(reader)
    os.close(writer)


def test_others_at_a_cgroup(program: int) -> None:
    with cgroups.throwaway(MOUNT) as directory:
        assert cgroups.others_attached(directory) == []
        attach(directory, program, syscall.F_ALLOW_MULTI)
        assert cgroups.others_attached(directory) == ["ram_probe"]


@pytest.mark.parametrize(
    ("flags", "here", "below"),
    [(syscall.F_ALLOW_MULTI, True, True), (syscall.F_ALLOW_OVERRIDE, False, True), (0, False, False)],
)
def test_who_refuses_company(program: int, flags: int, here: bool, below: bool) -> None:
    """What is said beforehand is what the kernel does then."""
    mine = features.load_small(ProgramType.CGROUP_SKB, AttachType.INET_EGRESS)
    with cgroups.throwaway(MOUNT) as directory:
        inside = directory / "a" / "b"
        inside.mkdir(parents=True)
        try:
            attach(directory, program, flags)
            for cgroup, allowed in ((directory, here), (inside, below)):
                refusing = cgroups.refusing_company(cgroup, MOUNT)
                assert refusing == (None if allowed else directory)
                if allowed:
                    attach(cgroup, mine, syscall.F_ALLOW_MULTI)
                else:
                    with pytest.raises(PermissionError):
                        attach(cgroup, mine, syscall.F_ALLOW_MULTI)
        finally:
            os.close(mine)
            inside.rmdir()
            inside.parent.rmdir()


# --- network namespaces


def test_throwaway_namespace() -> None:
    own = namespaces.identity(Path("/proc/thread-self/ns/net"))
    with namespaces.throwaway():
        there = namespaces.identity(Path("/proc/thread-self/ns/net"))
        assert there != own
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert namespaces.identity(Path("/proc/thread-self/ns/net")) == own

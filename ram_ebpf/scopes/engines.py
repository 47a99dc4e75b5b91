"""Finding container engines: by their running processes, their units, their pid files and their sockets."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ram_ebpf.peer import peer_of
from ram_ebpf.policy.choices import Engine
from ram_ebpf.scopes.cgroup import find_cgroup2_mount, of_process
from ram_ebpf.scopes.target import Places, Target
from ram_ebpf.scopes.unit import directories

# The kernel's name of a process, 15 bytes at most. podman is no daemon; only its API service is.
_COMMANDS = {
    "dockerd": Engine.DOCKER,
    "containerd": Engine.CONTAINERD,
    "crio": Engine.CRIO,
    "podman": Engine.PODMAN,
}
_UNITS = {
    Engine.DOCKER: "docker.service",
    Engine.CONTAINERD: "containerd.service",
    Engine.CRIO: "crio.service",
    Engine.PODMAN: "podman.service",
}
_PID_FILES = {Engine.DOCKER: ("docker.pid",), Engine.CRIO: ("crio.pid", "crio/crio.pid")}
_SOCKETS = {
    Engine.DOCKER: "docker.sock",
    Engine.CONTAINERD: "containerd/containerd.sock",
    Engine.CRIO: "crio/crio.sock",
    Engine.PODMAN: "podman/podman.sock",
}
_RUN = Path("/run")
_PATIENCE = 1.0  # seconds
_WALK = 10.0  # seconds between two looks through all cgroups
_CLOCK_TICK = 1.0  # seconds by which the two clocks may differ
_ACCEPTS = 0x10000  # __SO_ACCEPTCON, include/linux/net.h


class FoundEngine(NamedTuple):
    """A running engine and the cgroup2 directory that it lives in."""

    engine: Engine
    pid: int
    cgroup: Path


def socket_of(engine: Engine, run: Path = _RUN) -> Path:
    """Where an engine of a kind usually listens."""
    return run / _SOCKETS[engine]


def _kinds(wanted: Engine) -> list[Engine]:
    return [kind for kind in _UNITS if wanted in (Engine.ALL, kind)]


def _is_service(engine: Engine, pid: int, proc: Path) -> bool:
    if engine is not Engine.PODMAN:
        return True
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"system" in words and b"service" in words


def find_engines(wanted: Engine, proc: Path = Path("/proc"), run: Path = _RUN) -> list[FoundEngine]:
    """All running engines of a kind, by pid; `Engine.ALL` for every kind."""
    mount = find_cgroup2_mount()
    pids: dict[int, Engine] = dict(_by_command(wanted, proc))
    for kind in _kinds(wanted):
        for pid in _by_pid_file(kind, run, proc):
            pids.setdefault(pid, kind)
        if kind not in pids.values():  # else nobody needs to be disturbed
            for pid in _by_socket(kind, run, proc):
                pids.setdefault(pid, kind)
    found = []
    for pid, engine in sorted(pids.items()):
        cgroup = of_process(pid, mount, proc)
        if cgroup is not None:
            found.append(FoundEngine(engine, pid, cgroup))
    return found


def _by_command(wanted: Engine, proc: Path) -> Iterator[tuple[int, Engine]]:
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        engine = _COMMANDS.get(command)
        is_wanted = engine is not None and wanted in (Engine.ALL, engine)
        if engine is not None and is_wanted and _is_service(engine, int(entry.name), proc):
            yield int(entry.name), engine


def _by_pid_file(engine: Engine, run: Path, proc: Path) -> Iterator[int]:
    """A file that was left behind may name a process that somebody else has started since."""
    for name in _PID_FILES.get(engine, ()):
        with contextlib.suppress(OSError, ValueError):
            file = run / name
            pid = int(file.read_text(encoding="ascii")[:20])
            if _started(pid, proc) <= file.stat().st_mtime + _CLOCK_TICK:
                yield pid


def _started(pid: int, proc: Path) -> float:
    """When a process was started, by the clock of files (proc_pid_stat(5), field 22). Raises OSError."""
    # Behind the name, which is in brackets and may hold anything.
    fields = (
        (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    )
    since_boot = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot


def _by_socket(engine: Engine, run: Path, proc: Path) -> Iterator[int]:
    """Who listens there, unless it is the service manager for somebody that it has not started yet."""
    path = socket_of(engine, run)
    # To connect would start the engine, even one that somebody has just stopped.
    if _listening(path, proc) & _sockets_of_init(proc):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as item:
        item.settimeout(_PATIENCE)
        item.connect(str(path))
        pid = peer_of(item).pid
        if pid not in (0, 1, os.getpid()):
            yield pid


def _listening(path: Path, proc: Path) -> set[str]:
    """The numbers of the sockets that listen there; /run is called /var/run as well."""
    names = {str(path), str(path.resolve()), f"/var{path}"}
    found = set()
    with contextlib.suppress(OSError):
        for line in (proc / "net" / "unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
            fields = line.split(maxsplit=7)  # number, references, protocol, flags, type, state, inode, path
            if len(fields) == 8 and fields[7] in names and int(fields[3], 16) & _ACCEPTS:
                found.add(fields[6])
    return found


def _sockets_of_init(proc: Path) -> set[str]:
    found = set()
    with contextlib.suppress(OSError):
        for entry in (proc / "1" / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    return found


class EngineTarget(Target):
    """The cgroups of the engines of one kind, or of all kinds, as they come and go.

    The cgroup of an engine's unit is there before its process is: that is governed from the first packet.
    """

    period = 2.0

    def __init__(self, engine: Engine, mount: Path) -> None:
        self.label = f"engine {engine.value}"
        self._engine = engine
        self._mount = mount
        self.units = tuple(_UNITS[kind] for kind in _kinds(engine))
        self._elsewhere: set[Path] = set()  # cgroups of these units that are not where they usually are
        self._next_walk = float("-inf")

    def find(self) -> Places:
        """Not the root cgroup, which holds more than an engine."""
        cgroups = {found.cgroup for found in find_engines(self._engine)}
        now = time.monotonic()
        if now >= self._next_walk:
            self._next_walk = now + _WALK
            self._elsewhere = set(directories(self.units[0], self._mount, *self.units[1:]))
        usual = {self._mount / parent / unit for unit in self.units for parent in ("", "system.slice")}
        cgroups.update(path for path in usual | self._elsewhere if path.is_dir())
        return Places(cgroups=frozenset(cgroups - {self._mount}))

"""Finding container engines by their running processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ram_ebpf.policy.scope import Engine
from ram_ebpf.scopes.cgroup import find_cgroup2_mount, of_process

# The kernel's name of a process, 15 bytes at most. podman is no daemon; only its API service is.
_COMMANDS = {
    "dockerd": Engine.DOCKER,
    "containerd": Engine.CONTAINERD,
    "crio": Engine.CRIO,
    "podman": Engine.PODMAN,
}


@dataclass(frozen=True)
class FoundEngine:
    """A running engine and the cgroup2 directory that it lives in."""

    engine: Engine
    pid: int
    cgroup: Path


def _is_service(engine: Engine, pid: int, proc: Path) -> bool:
    if engine is not Engine.PODMAN:
        return True
    try:
        words = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"system" in words and b"service" in words


def find_engines(wanted: Engine, proc: Path = Path("/proc")) -> list[FoundEngine]:
    """All running engines of a kind, by pid; `Engine.ALL` for every kind."""
    mount = find_cgroup2_mount()
    found = []
    for entry in sorted((e for e in proc.iterdir() if e.name.isdigit()), key=lambda e: int(e.name)):
        try:
            command = (entry / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue
        engine = _COMMANDS.get(command)
        if engine is None or wanted not in (Engine.ALL, engine):
            continue
        pid = int(entry.name)
        cgroup = of_process(pid, mount, proc)
        if cgroup is not None and _is_service(engine, pid, proc):
            found.append(FoundEngine(engine, pid, cgroup))
    return found

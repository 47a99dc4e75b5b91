"""Containers in which BuildKit builds images, such as those of `docker buildx create`.

Whoever names or renames them, what runs buildkitd is a builder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ram_ebpf.scopes.cgroup import of_process
from ram_ebpf.scopes.containers import RunningContainer

# buildx: driver/docker-container/factory.go and driver.go.
_NAME = "buildx_buildkit_"
_IMAGE = "moby/buildkit"
_DAEMON = "buildkitd"


def is_builder(container: RunningContainer, mount: Path, proc: Path = Path("/proc")) -> bool:
    """Whether a container is a builder: by its name, its image, or the program that runs in it."""
    image = container.image.removeprefix("docker.io/")
    if container.name.startswith(_NAME) or image.split("@")[0].split(":")[0] == _IMAGE:
        return True
    return any(_DAEMON in names for names in _programs(container.pid, mount, proc))


def _programs(pid: int, mount: Path, proc: Path) -> Iterator[set[str]]:
    """The names of each process of a container: the kernel's, and that of its executable."""
    cgroup = of_process(pid, mount, proc)
    processes = {pid}
    if cgroup is not None and cgroup != mount:
        processes.update(_members(cgroup))
    for process in processes:
        names = set()
        try:
            names.add((proc / str(process) / "comm").read_text(encoding="utf-8", errors="replace").strip())
            names.add((proc / str(process) / "exe").readlink().name)
        except OSError:  # it has ended
            pass
        yield names


def _members(cgroup: Path) -> Iterator[int]:
    for directory, _, _ in os.walk(cgroup):
        try:
            lines = (Path(directory) / "cgroup.procs").read_text(encoding="ascii").split()
        except OSError:
            continue
        yield from map(int, lines)

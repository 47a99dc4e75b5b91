"""Containers in which BuildKit builds images, such as those of `docker buildx create`.

Whoever names or renames them, what runs buildkitd is a builder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ram_ebpf.scopes.cgroup import of_container
from ram_ebpf.scopes.containers import RunningContainer

# buildx: driver/docker-container/factory.go and driver.go.
_NAME = "buildx_buildkit_"
_IMAGE = "moby/buildkit"
# The program; and buildx calls the container so in the pods that it makes (driver/kubernetes/manifest).
_DAEMON = "buildkitd"
_POD_LABEL = "io.kubernetes.container.name"  # the kubelet's


def is_builder(container: RunningContainer, mount: Path, proc: Path = Path("/proc")) -> bool:
    """Whether a container is a builder: by its name, its image, or the program that runs in it."""
    if container.name == _DAEMON or (_POD_LABEL, _DAEMON) in container.labels:
        return True
    image = container.image.removeprefix("docker.io/")
    if container.name.startswith(_NAME) or image.split("@")[0].split(":")[0] == _IMAGE:
        return True
    cgroup = of_container(container.pid, container.identifier, mount, proc)
    processes = {container.pid}
    if cgroup is not None and cgroup != mount:
        processes.update(_members(cgroup))
    return any(is_buildkit(process, proc) for process in processes)


def is_buildkit(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether a process is BuildKit's daemon: by the kernel's name of it, or that of its executable."""
    process = proc / str(pid)
    with contextlib.suppress(OSError):  # it has ended
        comm = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
        return _DAEMON in (comm, (process / "exe").readlink().name)
    return False


def _members(cgroup: Path) -> Iterator[int]:
    for directory, _, _ in os.walk(cgroup):
        try:
            lines = (Path(directory) / "cgroup.procs").read_text(encoding="ascii").split()
        except OSError:
            continue
        yield from map(int, lines)

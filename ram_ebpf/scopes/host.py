"""The whole host: everything in the root of the control groups, or below a directory that stands for it."""

from __future__ import annotations

from pathlib import Path

from ram_ebpf.scopes.target import CgroupTarget


class HostTarget(CgroupTarget):
    """All processes of this host, containers included: the hooks of a cgroup see those of all below it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "host")

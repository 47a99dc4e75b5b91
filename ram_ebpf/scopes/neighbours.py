"""The network namespaces in which processes of some cgroups are, by /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

Identity = tuple[int, int]
_MOST = 4096  # processes that are looked at in one call


def _processes(cgroup: Path) -> Iterator[int]:
    for parent, _, _ in os.walk(cgroup):
        try:
            text = Path(parent, "cgroup.procs").read_text(encoding="ascii")
        except OSError:  # removed meanwhile, or threaded
            continue
        for word in text.split():
            if word != "0":  # of another PID namespace
                yield int(word)


def namespaces_of(cgroups: Iterable[Path]) -> dict[Identity, Path]:
    """By what tells them apart, each with one way to it (/proc/PID/ns/net), which may soon be gone."""
    found: dict[Identity, Path] = {}
    looked = 0
    for cgroup in cgroups:
        for pid in _processes(cgroup):
            looked += 1
            if looked > _MOST:
                return found
            path = Path(f"/proc/{pid}/ns/net")
            try:
                status = path.stat()
            except OSError:
                continue
            found.setdefault((status.st_dev, status.st_ino), path)
    return found

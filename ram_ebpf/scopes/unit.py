"""systemd units, by the cgroup that has their name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ram_ebpf.scopes.target import Places, Target

_DEPTH = 6  # root.slice, machine.slice and user@.service nest; what is deeper is a container's own business


def directories(unit: str, mount: Path, *others: str) -> Iterator[Path]:
    """The cgroups of units. A unit's name is that of its directory (systemd: src/basic/cgroup-util.c).

    Names that would be taken for a file of the kernel have an underscore in front there.
    """
    names = {name for each in (unit, *others) for name in (each, f"_{each}")}
    for parent, children, _ in os.walk(mount):
        if len(Path(parent).relative_to(mount).parts) >= _DEPTH:
            children.clear()
        for child in names.intersection(children):
            yield Path(parent, child)


class UnitTarget(Target):
    """The cgroups of one unit: there may be more where each user has a service manager."""

    period = 1.0

    def __init__(self, unit: str, mount: Path) -> None:
        self.label = f"unit {unit}"
        self.units = (unit,)
        self._unit = unit
        self._mount = mount
        self._found: frozenset[Path] = frozenset()

    def find(self) -> Places:
        """Looks the hierarchy through only when what was found is gone, or nothing was found."""
        if not self._found or not all(path.is_dir() for path in self._found):
            self._found = frozenset(directories(self._unit, self._mount))
        return Places(cgroups=self._found)

"""The cgroups of units that systemd has not started yet, made ahead, so that what they start is governed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ram_ebpf.scopes.target import Target

# systemd.unit(5), "System Unit Search Path", as far as distributions use it; /lib is that of Debian 12.
UNIT_FILES = tuple(
    Path(directory)
    for directory in (
        "/etc/systemd/system",
        "/run/systemd/system",
        "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    )
)
_SLICE = "system.slice"


def make_ahead(
    targets: Iterable[Target], mount: Path, unit_files: Iterable[Path] = UNIT_FILES
) -> Iterator[Path]:
    """Makes the directory of each unit among the targets that is installed and has no cgroup yet; tells each.

    systemd takes a directory that is there as it is (src/basic/cgroup-util.c, cg_create). A unit that is said
    to be in another slice than usual is not found here. Raises OSError where the kernel refuses.
    """
    parent = mount / _SLICE
    for unit in dict.fromkeys(unit for target in targets for unit in target.units):
        if any((directory / unit).exists() for directory in unit_files):
            directory = parent / unit
            if not directory.is_dir():
                directory.mkdir(parents=True)
                yield directory

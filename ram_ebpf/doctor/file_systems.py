"""The BPF file system, and the directories in which ram-ebpf keeps something."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from ram_ebpf.daemon import control, kept_files
from ram_ebpf.dataplane import cache, child, pins, syscall
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.maps import Map, raise_memlock_limit
from ram_ebpf.dataplane.syscall import MapType
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.permissions import writable_by_others

_CLONE_NEWNS = 0x00020000  # include/uapi/linux/sched.h
_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE of include/uapi/linux/mount.h
_libc = ctypes.CDLL(None, use_errno=True)
_WITHOUT = "if ram-ebpf is killed, its scopes reach nothing until it is started again"


def examine_bpf(case: Case) -> Iterator[Finding]:
    """Whether arrays of programs can be pinned. For root."""
    place = pins.FILE_SYSTEM
    mounted = pins.is_bpf(place)
    if mounted and os.statvfs(place).f_flag & os.ST_RDONLY:
        yield warning(
            Check.BPF_FILE_SYSTEM,
            f"the BPF file system at {place} may only be read: {_WITHOUT}",
            f"mount -o remount,rw {place}",
        )
        return
    try:
        error = child.error_of(lambda: _try(place))
    except RuntimeError as problem:
        error = OSError(0, str(problem))
    if error is not None:
        yield warning(
            Check.BPF_FILE_SYSTEM,
            f"there is no BPF file system at {place}, and none can be mounted ({error.strerror}): {_WITHOUT}",
            f"mkdir -p {place} && mount -t bpf bpf {place}; where /sys may only be read, name another place "
            "in RAM_EBPF_BPFFS",
        )
    elif mounted:
        yield well(Check.BPF_FILE_SYSTEM, f"the BPF file system is at {place}")
    else:
        yield well(
            Check.BPF_FILE_SYSTEM, f"no BPF file system is at {place} yet; ram-ebpf mounts it when it starts"
        )


def _try(place: Path) -> None:
    """Mounts one there that nobody else sees and that ends with this process, and pins a map in it."""
    if _libc.unshare(_CLONE_NEWNS) != 0 or _libc.mount(None, b"/", None, _PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "a mount namespace")
    if _libc.mount(b"bpf", os.fsencode(place), b"bpf", 0, b"mode=0700") != 0:
        raise OSError(ctypes.get_errno(), "mount")
    raise_memlock_limit()
    item = Map("probe", MapShape(MapType.ARRAY, 4, 4, 1, 0))
    syscall.object_pin(str(place / "probe"), item.fd)


def examine_directories(case: Case) -> Iterator[Finding]:
    """Where bytecode and the last good policy are kept, and where instances are asked. For root."""
    wanted = {
        cache.DEFAULT_DIRECTORY: "programs are compiled anew at each start",
        control.DIRECTORY: "`ram-ebpf status` cannot ask the daemon",
        kept_files.DIRECTORY: "a start with a policy that is wrong has no good one to go back to",
    }
    problems = list(filter(None, (of_directory(path, without) for path, without in wanted.items())))
    if problems:
        yield from problems
    else:
        yield well(Check.DIRECTORIES, f"{', '.join(map(str, wanted))} can be used")


def of_directory(path: Path, without: str) -> Finding | None:
    """What is wrong with a directory of ours; one that is not there yet is made when it is wanted."""
    there = next(part for part in (path, *path.parents) if part.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        return warning(
            Check.DIRECTORIES,
            f"{there} cannot be written: {without}",
            f"make {path} writable for root; docs/doctor.md says how to name another directory",
            subject=str(path),
        )
    if path.exists() and (other := writable_by_others(path)) is not None:
        return failure(
            Check.DIRECTORIES,
            f"others than root may write to {other}, and what is in {path} decides what is allowed, what the "
            "kernel runs or whom root asks",
            f"chown root {other} && chmod go-w {other}",
            subject=str(path),
        )
    return None

"""What keeps the programs working when this process is killed.

What is attached outlives us, but an array of programs is emptied by the kernel when no file descriptor and no
pin holds it any more (prog_array_map_clear in kernel/bpf/arraymap.c), and attached programs that call into an
empty array let nothing pass. So the arrays are pinned in the BPF file system, in a directory for each
instance. A clean end removes it, and a start removes those of dead instances that nothing attached needs.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ram_ebpf import __version__
from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.programs import PROGRAM_SETS

# RAM_EBPF_BPFFS moves it, for hosts whose /sys is read-only and for tests.
FILE_SYSTEM = Path(os.environ.get("RAM_EBPF_BPFFS") or "/sys/fs/bpf")
_TOP = "ram-ebpf"
_MAGIC = 0xCAFE4A11  # BPF_FS_MAGIC, include/uapi/linux/magic.h
_libc = ctypes.CDLL(None, use_errno=True)


class _Statfs(ctypes.Structure):
    """The head of struct statfs, with room for the rest (statfs(2))."""

    _fields_ = [("type", ctypes.c_long), ("rest", ctypes.c_long * 31)]


def is_bpf(directory: Path) -> bool:
    """Whether a BPF file system is mounted there."""
    answer = _Statfs()
    if _libc.statfs(os.fsencode(directory), ctypes.byref(answer)) != 0:
        return False
    return bool(answer.type & 0xFFFFFFFF == _MAGIC)


def mount(directory: Path = FILE_SYSTEM) -> None:
    """Mounts the BPF file system where systemd would have, if it is not there. Raises OSError."""
    if is_bpf(directory):
        return
    if _libc.mount(b"bpf", os.fsencode(directory), b"bpf", 0, b"mode=0700") != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount -t bpf bpf {directory}: {os.strerror(number)}")


class Pins:
    """The pins of this instance. The directory is locked for as long as the process lives."""

    def __init__(self, file_system: Path = FILE_SYSTEM) -> None:
        """Raises OSError where there is no BPF file system and none can be mounted."""
        mount(file_system)
        top = file_system / _TOP
        top.mkdir(mode=0o700, exist_ok=True)
        # So that who finds it knows whose it was. No name there may have a dot (bpf_lookup() in
        # kernel/bpf/inode.c).
        version = __version__.replace(".", "_")
        self._directory = top / f"{os.getpid()}-{secrets.token_hex(4)}-{version}"
        self._directory.mkdir(mode=0o700)
        self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def add(self, prefix: str, arrays: Mapping[str, Map]) -> None:
        """Pins maps that are not yet, under their names with something in front. Raises OSError."""
        for name, item in arrays.items():
            path = self._directory / f"{prefix}{name}"
            if not path.exists():
                syscall.object_pin(str(path), item.fd)

    def drop(self, prefix: str) -> None:
        """Removes pins that were added with something in front, as far as that can be."""
        for path in self._directory.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):  # close() tries again
                path.unlink()

    def remove_unused(self) -> int:
        """Removes what dead instances left and nothing attached needs any more; returns how many."""
        count = 0
        for found in pinned(self._directory.parent.parent):
            if not found.alive and not found.needed:
                shutil.rmtree(found.directory, ignore_errors=True)
                count += 1
        return count

    def close(self) -> None:
        """Removes the pins: what is attached then is attached by nobody."""
        shutil.rmtree(self._directory, ignore_errors=True)
        with contextlib.suppress(OSError):
            self._directory.parent.rmdir()  # others' are still in there
        os.close(self._lock)


def dead(file_system: Path = FILE_SYSTEM) -> Iterator[Path]:
    """The directories of instances that do not live any more."""
    with contextlib.suppress(OSError):
        for directory in (file_system / _TOP).iterdir():
            if directory.is_dir() and not _is_alive(directory):
                yield directory


def remove_dead(file_system: Path = FILE_SYSTEM) -> list[Path]:
    """Removes the pins of all instances that are no more, needed or not; returns where they were."""
    directories = sorted(dead(file_system))
    for directory in directories:
        shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        (file_system / _TOP).rmdir()  # others' are still in there
    return directories


class Pinned(NamedTuple):
    """What one instance has pinned. `alive`: it still runs; `needed`: by programs that may be attached."""

    directory: Path
    alive: bool
    needed: bool

    @property
    def version(self) -> str | None:
        """Of ram-ebpf; None where it is one that did not say so."""
        parts = self.directory.name.split("-", 2)
        return parts[2].replace("_", ".") if len(parts) == 3 else None


def pinned(file_system: Path = FILE_SYSTEM) -> list[Pinned]:
    """What all instances have pinned there, in the order of their names. Raises OSError."""
    top = file_system / _TOP
    directories = sorted(top.iterdir()) if top.is_dir() else []
    alive = {directory: _is_alive(directory) for directory in directories}
    # To look through all programs takes a while, and is only for those of the dead.
    needed = set() if all(alive.values()) else set(_maps_of_attached())
    return [
        Pinned(directory, lives, lives or bool(needed.intersection(_pinned(directory))))
        for directory, lives in alive.items()
    ]


def _is_alive(directory: Path) -> bool:
    """Whether the process that made it still lives, by its lock."""
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _pinned(directory: Path) -> Iterator[int]:
    """The ids of the maps that are pinned in a directory."""
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            fd = syscall.object_get(str(path))
            try:
                yield syscall.map_info(fd).id
            finally:
                os.close(fd)


def _maps_of_attached() -> Iterator[int]:
    """The ids of the maps that programs use which are there to be attached, whoever loaded them."""
    names = {
        hook.object_name for programs in PROGRAM_SETS for hook in (*programs.attached, *programs.holding)
    }
    for identifier in syscall.program_ids():
        with contextlib.suppress(OSError):
            with syscall.opened_program(identifier) as fd:
                if syscall.program_info(fd).name in names:
                    yield from syscall.program_maps(fd)

"""Finding cgroup2 directories on pure (unified) and hybrid hosts alike."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_MOUNTINFO = Path("/proc/self/mountinfo")
_AT_FDCWD = -100
_IDENTIFIER = 12  # a shorter one may be a part of any name


class ScopeError(ValueError):
    """A scope that cannot be governed; the text names it and the cure."""


def _unescape(field: str) -> str:
    """Octal escapes of mountinfo (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def find_cgroup2_mount(mountinfo: Path = _MOUNTINFO) -> Path:
    """Where cgroup version 2 is mounted: /sys/fs/cgroup, or .../unified on hybrid hosts.

    Of several mounts the one that shows most of the hierarchy. Raises ScopeError when there is none.
    """
    found = []
    for line in mountinfo.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        fields = line.split(" ")
        if "-" in fields and fields[fields.index("-") + 1] == "cgroup2":
            shown = PurePosixPath(_unescape(fields[3]))
            found.append((len(shown.parts), len(fields[4]), _unescape(fields[4])))
    if not found:
        raise ScopeError(
            "cgroup version 2 is not mounted: mount it with `mount -t cgroup2 none /sys/fs/cgroup/unified`"
        )
    return Path(min(found)[2])


def resolve(path: str, mount: Path | None = None, may_be_root: bool = False) -> Path:
    """The directory of a cgroup, given as a path in the file system or in the hierarchy.

    `docker/abc` and `/docker/abc` are below the mount; `/sys/fs/cgroup/docker/abc` is taken as it is.
    Raises ScopeError when it is not there, not a cgroup2 directory, or the root where that may not be.
    """
    root = mount or find_cgroup2_mount()
    given = Path(path)
    inside = given if given.is_relative_to(root) else root / path.lstrip("/")
    directory = Path(os.path.normpath(inside))
    if not directory.is_relative_to(root):
        raise ScopeError(f"cgroup {path}: leads out of {root}")
    if directory == root and not may_be_root:
        raise ScopeError(
            f"cgroup {path}: is the root, which holds this whole host, and a strict scope would cut it off; "
            "name the cgroup of an engine, such as system.slice/docker.service"
        )
    try:
        there = (directory / "cgroup.procs").is_file()
    except OSError:  # a name longer than file names may be
        there = False
    if not there:
        raise ScopeError(
            f"cgroup {path}: there is no cgroup2 directory {directory}; "
            f"`ls {root}` shows what there is, and /proc/PID/cgroup where a process is"
        )
    return directory


def resolve_root(path: Path) -> Path:
    """A directory that stands for the whole host, as an absolute path. Raises ScopeError."""
    directory = path.absolute().resolve()
    try:
        there = (directory / "cgroup.procs").is_file()
    except OSError:
        there = False
    if not there:
        raise ScopeError(
            f"--cgroup-root {path}: is no cgroup2 directory; `ls {find_cgroup2_mount()}` shows some"
        )
    return directory


def of_process(pid: int, mount: Path | None = None, proc: Path | None = None) -> Path | None:
    """The cgroup2 directory of a process; None when it is gone or outside what we see."""
    file = (proc or Path("/proc")) / str(pid) / "cgroup"
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/") and not line.startswith("0::/.."):
            return (mount or find_cgroup2_mount()) / line[4:]
    return None


def of_container(
    pid: int, identifier: str, mount: Path | None = None, proc: Path | None = None
) -> Path | None:
    """The cgroup2 directory of a container, by its first process; None as of_process() gives it.

    A process with rights in there may have moved itself below the directory that the engine has made, which
    has the container's identifier in its name: buildkitd goes to init, and has its steps beside that.
    """
    cgroup = of_process(pid, mount, proc)
    if cgroup is None or len(identifier) < _IDENTIFIER:
        return cgroup
    # From the top, as directories further down may be named by whoever is in there.
    return next((path for path in (*reversed(cgroup.parents), cgroup) if identifier in path.name), cgroup)


class _FileHandle(ctypes.Structure):
    """struct file_handle of name_to_handle_at(2), with room for what cgroup2 puts into it: 64 bits."""

    _fields_ = [
        ("handle_bytes", ctypes.c_uint),
        ("handle_type", ctypes.c_int),
        ("f_handle", ctypes.c_uint64),
    ]
    _pack_ = 1


def identifier(directory: Path) -> int:
    """The id by which the kernel's programs know a cgroup (bpf_skb_cgroup_id). Raises OSError.

    It is the directory's inode number; before Linux 5.5 a generation stands in its upper half.
    """
    handle, mount = _FileHandle(8, 0, 0), ctypes.c_int()
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.fsencode(directory)
    if libc.name_to_handle_at(_AT_FDCWD, path, ctypes.byref(handle), ctypes.byref(mount), 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), str(directory))
    return int(handle.f_handle)


def _walk(directory: Path) -> Iterator[Path]:
    yield directory
    for parent, names, _ in os.walk(directory):
        for name in names:
            yield Path(parent, name)


class CgroupNames:
    """Names cgroups by the ids that the kernel gives."""

    def __init__(self, mount: Path) -> None:
        self._mount = mount
        self._known: dict[int, str] = {}

    def path(self, identifier: int) -> str | None:
        """The path in the hierarchy (`/docker/abc`), or None when it is gone.

        The id is the directory's inode number; before Linux 5.5 a generation stands in its upper half.
        """
        for candidate in (identifier, identifier & 0xFFFFFFFF):
            if candidate in self._known:
                return self._known[candidate]
        self._known.clear()
        for directory in _walk(self._mount):
            try:
                relative = directory.relative_to(self._mount)
                self._known[directory.stat().st_ino] = "/" if relative == Path() else f"/{relative}"
            except OSError:
                continue
        return self._known.get(identifier) or self._known.get(identifier & 0xFFFFFFFF)

    def directory(self, identifier: int) -> Path | None:
        """The same as a directory in the file system."""
        path = self.path(identifier)
        return None if path is None else self._mount / path.lstrip("/")

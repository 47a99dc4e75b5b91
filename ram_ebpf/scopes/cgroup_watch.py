"""A descriptor that is readable when a cgroup was made or removed: inotify(7) on the hierarchy."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

# include/uapi/linux/inotify.h
_IN_CREATE = 0x100
_IN_DELETE = 0x200
_IN_MOVED = 0xC0
_IN_ONLYDIR = 0x01000000
_libc = ctypes.CDLL(None, use_errno=True)


class CgroupWatch:
    """Watches directories, as far as they are there."""

    def __init__(self, directories: Iterable[Path]) -> None:
        """Raises OSError where the kernel has no inotify instance left."""
        self._directories: dict[Path, None] = {}
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"inotify: {os.strerror(number)}")
        self.add(directories)

    def add(self, directories: Iterable[Path]) -> None:
        """Watches these as well."""
        self._directories.update(dict.fromkeys(directories))
        self._add()

    def watch(self, directory: Path) -> bool:
        """Whether the directory that is there now is watched from now on, if it was not before.

        It is not where there is none, nor where the user has no watch left (fs.inotify.max_user_watches).
        """
        mask = _IN_CREATE | _IN_DELETE | _IN_MOVED | _IN_ONLYDIR
        return bool(_libc.inotify_add_watch(self._fd, os.fsencode(directory), mask) >= 0)

    def _add(self) -> None:
        """Adding again what is watched changes nothing; a directory may have come since."""
        for directory in list(self._directories):
            self.watch(directory)

    def fileno(self) -> int:
        """For a selector."""
        return self._fd

    def has_news(self) -> bool:
        """Whether there was something since the last call. What it was is looked up."""
        news = False
        while True:
            try:
                news = bool(os.read(self._fd, 65536)) or news
            except BlockingIOError:
                break
        if news:
            self._add()
        return news

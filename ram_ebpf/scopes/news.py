"""Waking the main loop from another thread."""

from __future__ import annotations

import contextlib
import os
import weakref


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class News:
    """A descriptor that is readable when there was a change. Any thread may tell of one."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # When nobody has it any more: a thread that is about to tell of something has it.
        weakref.finalize(self, _close, self._reader, self._writer)

    def fileno(self) -> int:
        """Readable when there was a change; see has_news()."""
        return self._reader

    def has_news(self) -> bool:
        """Whether there was a change since the last call."""
        try:
            return bool(os.read(self._reader, 4096))
        except BlockingIOError:
            return False

    def tell(self) -> None:
        """There was a change."""
        with contextlib.suppress(BlockingIOError):  # full of news that nobody has read yet
            os.write(self._writer, b"!")

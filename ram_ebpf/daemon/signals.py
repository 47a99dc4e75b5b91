"""The signals that a daemon understands."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Signals:
    """SIGTERM and SIGINT end the daemon; SIGUSR1 does too, but what is enforced is left to the next instance;
    at SIGHUP the policy is read again."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.is_to_leave = False
        self.is_to_reload = False
        """Set back by whoever does it."""

    @contextlib.contextmanager
    def handled(self) -> Iterator[int]:
        """Until the block ends. Each of them makes the returned descriptor readable."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        previous = {number: signal.signal(number, self._end) for number in (signal.SIGTERM, signal.SIGINT)}
        previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self._leave)
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._reload)
        try:
            yield reader
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(previous_fd)
            os.close(reader)
            os.close(writer)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.stop.set()

    def _leave(self, number: int, frame: FrameType | None) -> None:
        self.is_to_leave = True
        self.stop.set()

    def _reload(self, number: int, frame: FrameType | None) -> None:
        self.is_to_reload = True

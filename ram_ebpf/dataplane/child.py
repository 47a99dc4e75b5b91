"""Trying something in a child process: whatever that changes of itself ends with it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn

from ram_ebpf import own_process

RAISED = 255
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Child:
    """A child process that runs a function. It ends with this process, however that ends.

    To be made before there are other threads.
    """

    def __init__(self, function: Callable[[], int]) -> None:
        """Begins. `function` returns a status from 0 to 254. Raises OSError."""
        self._status: int | None = None
        # So that neither of the two is interrupted while it does not know yet which one it is.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._pid = os.fork()
            if self._pid == 0:
                _run(function)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def wait(self) -> int:
        """What the function returned; RAISED where it raised, negative for a signal that ended the child."""
        if self._status is None:
            _, ended = os.waitpid(self._pid, 0)
            self._status = os.waitstatus_to_exitcode(ended)
        return self._status

    def close(self) -> None:
        """Ends it, if nobody has waited for it."""
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            self.wait()


def _run(function: Callable[[], int]) -> NoReturn:
    status = RAISED
    try:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        own_process.end_with_parent()
        status = function()
    finally:  # nothing of the caller's may be done twice, whatever was raised
        os._exit(status)


def status_of(function: Callable[[], int]) -> int:
    """What the function returns in a child, from 0 to 254; RAISED where it raises anything.

    To be called before there are other threads.
    """
    # Interrupted, it leaves no child behind.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with contextlib.closing(Child(function)) as child:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return child.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def error_of(function: Callable[[], object]) -> OSError | None:
    """The OSError that the function raises in a child, known by its number; None where it does not.

    Raises RuntimeError where the child ended in any other way.
    """

    def number() -> int:
        try:
            function()
        except OSError as error:
            return error.errno or RAISED
        return 0

    status = status_of(number)
    if status < 0 or status == RAISED:
        raise RuntimeError(f"a child process ended with {status}")
    return OSError(status, os.strerror(status)) if status else None

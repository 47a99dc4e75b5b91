"""Trying something in a child process: whatever that changes of itself ends with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from ram_ebpf import own_process

RAISED = 255
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def status_of(function: Callable[[], int]) -> int:
    """What the function returns in a child, from 0 to 254; RAISED where it raises anything.

    The child ends with this process, however that ends. To be called before there are other threads.
    """
    # So that neither of the two is interrupted while it does not know yet which one it is.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    child = os.fork()
    if child == 0:
        status = RAISED
        try:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            own_process.end_with_parent()
            status = function()
        finally:  # nothing of the caller's may be done twice, whatever was raised
            os._exit(status)
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _, ended = os.waitpid(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(ended)


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

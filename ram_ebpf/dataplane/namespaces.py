"""Network namespaces, into which one thread of this process steps for a while (setns(2))."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
OWN = Path("/proc/self/ns/net")
_THREAD = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


def _enter(fd: int, what: str) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}", what)


@contextlib.contextmanager
def inside(namespace: Path | None) -> Iterator[None]:
    """This thread is in the namespace (a file as in /proc/PID/ns/net); None: it stays where it is.

    Sockets made meanwhile stay in there. Raises OSError when the namespace is gone or none.
    """
    if namespace is None:
        yield
        return
    before = os.open(_THREAD, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(there, str(namespace))
        finally:
            os.close(there)
        try:
            yield
        finally:
            _enter(before, "the namespace of this process")
    finally:
        os.close(before)


@contextlib.contextmanager
def throwaway() -> Iterator[None]:
    """This thread is in a new network namespace, which ends with whatever is left open of it.

    Raises OSError where none can be made.
    """
    before = os.open(_THREAD, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"unshare(CLONE_NEWNET): {os.strerror(number)}")
        try:
            yield
        finally:
            _enter(before, "the namespace of this process")
    finally:
        os.close(before)


def identity(namespace: Path) -> tuple[int, int]:
    """By which one namespace is told from another. Raises OSError."""
    status = namespace.stat()
    return status.st_dev, status.st_ino

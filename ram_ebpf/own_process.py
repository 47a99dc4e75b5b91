"""Processes of this program's own, which run one of its modules and nobody else's."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h

DIRECTORY = "/"
"""Where they run. `-m` looks for modules there first: not where somebody else may have put some."""


def command(module: str, *words: str) -> list[str]:
    """Has Python run a module of ours, in environment().

    -S: what `site` would look for again, which takes as long as to start Python, is in that already.
    """
    return [sys.executable, "-S", "-m", module, *words]


def environment() -> dict[str, str]:
    """In which modules are found where this process finds them, but for its working directory."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def end_with_parent() -> None:
    """From now on this process is killed when the thread that has started it ends. Raises OSError.

    A change of user takes that away (prctl(2), PR_SET_PDEATHSIG).
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")

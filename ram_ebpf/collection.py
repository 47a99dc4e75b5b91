"""When Python looks for garbage in cycles: not while a policy is loaded, and never in what is loaded then.

And that the kernel gets back what loading has taken for a while.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def building_for_good() -> Iterator[None]:
    """Around the making of what lives until the end.

    100 000 rules are a million objects, which would be walked again and again while they are made, and
    afterwards once in a while, for half a second in which nobody reads events.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def give_back() -> None:
    """Gives free memory back to the kernel: glibc keeps what a policy took while it was loaded.

    Another C library has no malloc_trim(3), and keeps less.
    """
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)

"""When Python looks for garbage in cycles: not while a policy is loaded, and never in what is loaded then."""

from __future__ import annotations

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

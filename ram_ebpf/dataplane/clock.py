"""The clock of the programs: CLOCK_BOOTTIME, which goes on while the host is suspended, where they have it.

Before Linux 5.8 programs can only read CLOCK_MONOTONIC. Neither is moved by a change of the time of day.
"""

from __future__ import annotations

import time
from functools import cache

from ram_ebpf.dataplane import features

NANOSECONDS = 1_000_000_000


@cache
def _clock() -> int:
    return time.CLOCK_BOOTTIME if features.has_boot_time() else time.CLOCK_MONOTONIC


def now_ns() -> int:
    """Nanoseconds, comparable to what the programs write."""
    return time.clock_gettime_ns(_clock())

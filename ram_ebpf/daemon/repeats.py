"""Keeping a client that retries in a loop from filling the log with one and the same line."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

_PERIOD = 1.0  # seconds
_MOST = 4096
# What makes two decisions the same in a reader's eyes: a name stands for all its addresses.
_SAME = ("event", "reason", "port", "protocol", "pid", "cgroup")


class Repeats:
    """Passes the first of equal decisions of one process, and holds back the rest for a second.

    The next one that passes says in `repeated` how many were held back. Decisions whose process the kernel
    could not tell always pass: two clients must not be taken for one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[Any, ...], tuple[float, int]] = OrderedDict()

    def passes(self, record: dict[str, Any]) -> bool:
        """Whether to write the record; adds `repeated` to it where others were held back before it."""
        if "pid" not in record:
            return True
        key = (record.get("host") or record.get("address"), *(record.get(name) for name in _SAME))
        now = self._clock()
        since, held_back = self._seen.get(key, (float("-inf"), 0))
        if now - since < _PERIOD:
            self._seen[key] = (since, held_back + 1)
            return False
        if held_back:
            record["repeated"] = held_back
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        while len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        return True

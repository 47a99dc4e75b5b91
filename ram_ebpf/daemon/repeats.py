"""Keeping a client that retries in a loop from filling the log with one and the same line."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ram_ebpf.dataplane.abi import Hook
from ram_ebpf.dataplane.events import Event

_PERIOD = 1.0  # seconds
_MOST = 4096
# What makes two lines the same in a reader's eyes: a name stands for all its addresses.
_SAME = ("event", "reason", "port", "protocol", "pid", "cgroup", "scope", "resolver")
_BY_NETWORK = ("ignored-reply", "not-understood")


class Repeats:
    """Passes the first of equal lines about one process, and holds back the rest for a second.

    The next one that passes says in `repeated` how many were held back. Decisions whose process the kernel
    could not tell always pass: two clients must not be taken for one. (Of a device it is never known, and the
    scope stands for it.) A connection that was already
    decided at connect() is not told again when its first packet leaves (in audit mode it does).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: OrderedDict[tuple[Any, ...], tuple[float, int]] = OrderedDict()
        self._connected: OrderedDict[tuple[Any, ...], None] = OrderedDict()
        self.suppressed = 0
        """How many were held back in all."""

    def is_news(self, event: Event, record: dict[str, Any]) -> bool:
        """Whether to write the record; adds `repeated` to it where others were held back before it."""
        nameless = "pid" not in record and event.hook is not Hook.DEVICE_OUTGOING
        if nameless and record["event"] not in _BY_NETWORK:
            return True
        key = (record.get("host") or record.get("address"), *(record.get(name) for name in _SAME))
        now = self._clock()
        since, held_back = self._seen.get(key, (float("-inf"), 0))
        if now - since < _PERIOD:
            self._seen[key] = (since, held_back + 1)
            self.suppressed += 1
            return False
        if held_back:
            record["repeated"] = held_back
        self._seen[key] = (now, 0)
        self._seen.move_to_end(key)
        while len(self._seen) > _MOST:
            self._seen.popitem(last=False)
        return True

    def is_told(self, event: Event) -> bool:
        """Whether the decision was already told of when the connection was made."""
        key = (event.socket_cookie, event.address, event.port, event.verdict)
        if event.outgoing:
            return key in self._connected
        if not event.incoming:
            self._connected[key] = None
            while len(self._connected) > _MOST:
                self._connected.popitem(last=False)
        return False

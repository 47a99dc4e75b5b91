"""What was lost on its way to the log is said, with its number: at once at first, then now and then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol


class Say(Protocol):
    """Writes a line."""

    def __call__(self, event: str, explanation: str, *, count: int) -> None: ...


class Losses:
    """Counts by what was lost. One thread calls this."""

    def __init__(self, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._counts: dict[tuple[str, str], int] = {}
        self._next = float("-inf")
        self.totals: Counter[str] = Counter()
        """Since the start, by event."""

    def note(self, event: str, what: str, count: int) -> None:
        """So many more were lost. `event`: of the line; `what`: the rest of the sentence after the number,
        one of a few."""
        if count > 0:
            self.totals[event] += count
            self._counts[event, what] = self._counts.get((event, what), 0) + count

    def tell(self, pause: float, at_once: bool = False) -> None:
        """Writes what there is, unless that was done less than `pause` seconds ago and is not wanted
        `at_once`."""
        now = self._clock()
        if not self._counts or (now < self._next and not at_once):
            return
        self._next = now + pause
        counts, self._counts = self._counts, {}
        for (event, what), count in counts.items():
            self._say(event, f"{count} {what}", count=count)

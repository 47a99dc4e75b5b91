"""The last refusals, for `ram-ebpf explain --last`."""

from __future__ import annotations

from collections import deque
from typing import Any

MOST = 100
_REFUSALS = frozenset({"denied", "would-deny"})


class LastRefusals:
    """Keeps the lines of the log that refuse something, the latest hundred of them."""

    def __init__(self, most: int = MOST) -> None:
        self._records: deque[dict[str, Any]] = deque(maxlen=most)
        self.noted = 0
        """How many there have been in all, those included that are gone."""

    def note(self, record: dict[str, Any]) -> None:
        """A line of the log, with its time."""
        if record.get("event") in _REFUSALS:
            self._records.append(record)
            self.noted += 1

    def last(self, count: int) -> list[dict[str, Any]]:
        """So many at most, the latest one first."""
        return list(reversed(self._records))[:count]

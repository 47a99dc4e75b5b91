"""Counting by several threads."""

from __future__ import annotations

import threading


class Tally:
    """How often each of a few things happened. Any thread may count and look."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(names, 0)

    def add(self, name: str, number: int = 1) -> None:
        """It happened again. Raises KeyError for what is not counted here."""
        with self._lock:
            self._counts[name] += number

    def counts(self) -> dict[str, int]:
        """So far, those that never happened included."""
        with self._lock:
            return dict(self._counts)

"""Whose question comes next: those who ask take turns, so that nobody who asks a lot keeps others waiting."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Asker(Generic[T]):
    waiting: deque[T] = field(default_factory=deque)
    under_way: int = 0


class Turns(Generic[T]):
    """What waits, by who asked. Whoever asks has room for `room` items, of which `at_once` are under way.

    All may be called from any thread.
    """

    def __init__(self, room: int, at_once: int) -> None:
        self._room = room
        self._at_once = at_once
        self._askers: OrderedDict[int, _Asker[T]] = OrderedDict()  # who comes next first
        self._lock = threading.Lock()

    def add(self, asker: int, item: T) -> bool:
        """Puts an item behind the others of its asker; False when that has no room any more."""
        with self._lock:
            found = self._askers.setdefault(asker, _Asker())
            if len(found.waiting) + found.under_way >= self._room:
                return False
            found.waiting.append(item)
            return True

    def take(self) -> tuple[int, T] | None:
        """The next item and its asker, for whom `finish` must be called; None when all have to wait."""
        with self._lock:
            for asker, found in self._askers.items():
                if found.waiting and found.under_way < self._at_once:
                    found.under_way += 1
                    self._askers.move_to_end(asker)
                    return asker, found.waiting.popleft()
            return None

    def finish(self, asker: int) -> None:
        """An item of the asker is not under way any more."""
        with self._lock:
            found = self._askers[asker]
            found.under_way -= 1
            if not found.under_way and not found.waiting:
                del self._askers[asker]

    def drain(self) -> Iterator[T]:
        """Takes out all that waits, whoever asked."""
        with self._lock:
            waiting = [item for found in self._askers.values() for item in found.waiting]
            for found in self._askers.values():
                found.waiting.clear()
        yield from waiting

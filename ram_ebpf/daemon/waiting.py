"""On what the main loop waits, which changes when a policy does."""

from __future__ import annotations

import selectors
from collections.abc import Iterable
from typing import Protocol


class Source(Protocol):
    """Whatever has a descriptor that becomes readable."""

    def fileno(self) -> int:
        """That descriptor."""


class Waiting:
    """Descriptors of this moment."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sources: tuple[Source | int | None, ...] = ()

    def on(self, *sources: Source | int | None) -> None:
        """From now on these, and nothing else. None stands for what is not there."""
        before, self._sources = self._sources, sources
        if len(before) == len(sources) and all(map(lambda one, other: one is other, before, sources)):
            return
        for one in _without(before, sources):
            self._selector.unregister(one)
        for one in _without(sources, before):
            self._selector.register(one, selectors.EVENT_READ)

    def wait(self, seconds: float) -> set[int]:
        """The descriptors that are readable, at the latest after that time."""
        return {key.fd for key, _ in self._selector.select(seconds)}

    def close(self) -> None:
        """Waits for nothing any more. The descriptors stay open."""
        self._selector.close()


def _without(
    some: Iterable[Source | int | None], others: Iterable[Source | int | None]
) -> list[Source | int]:
    there = {id(one) for one in others}
    return [one for one in some if one is not None and id(one) not in there]

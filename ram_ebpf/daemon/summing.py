"""Keeps in mind and on disk what is refused, for `ram-ebpf suggest` and `ram-ebpf top`."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ram_ebpf.daemon.kept_files import DIRECTORY
from ram_ebpf.daemon.kept_refusals import BusyError, Keeper, told
from ram_ebpf.suggestions.refused import from_record
from ram_ebpf.suggestions.summary import Summary

_SAVE_PERIOD = 30.0  # seconds
_SAY_PERIOD = 3600.0

Say = Callable[[str, str], None]


class Summing:
    """One thread calls all of this. Nothing that goes wrong with the disk is of consequence elsewhere."""

    def __init__(
        self, policy: str | None, say: Say, directory: Path = DIRECTORY, summary: Summary | None = None
    ) -> None:
        """`policy`: the name of the policy file, if there is one."""
        self._policy = None if policy is None else str(Path(policy).absolute())
        self._say = say
        self._summary = Summary() if summary is None else summary
        self._changed = False
        self._next_save = time.monotonic() + _SAVE_PERIOD
        self._next_say = float("-inf")
        self._told_forgotten = 0
        self._keeper: Keeper | None = None
        try:
            self._keeper = Keeper(policy, directory)
        except (BusyError, OSError) as error:
            self._say_not_kept(error)
        kept = self._keeper.load() if self._keeper is not None else None
        if kept is not None:
            self._summary.take(kept.entries)
            self._summary.forgotten = kept.forgotten
            self._told_forgotten = kept.forgotten.count

    def _say_not_kept(self, error: Exception) -> None:
        self._say(
            "refusals-not-kept", f"`ram-ebpf suggest` will not know of what this instance refuses: {error}"
        )

    def note(self, record: dict[str, Any]) -> None:
        """A line of the log, or one that is held back as it repeats another one."""
        refused = from_record(record, int(time.time()))
        if refused is not None:
            self._summary.note(refused)
            self._changed = True

    def follow(self) -> None:
        """Saves now and then, and says where too much is refused."""
        now = time.monotonic()
        forgotten = self._summary.forgotten
        if forgotten.count > self._told_forgotten and now >= self._next_say:
            self._next_say, self._told_forgotten = now + _SAY_PERIOD, forgotten.count
            self._say(
                "refusals-forgotten",
                f"more hosts and ports were refused than `ram-ebpf suggest` keeps ({len(self._summary)}), "
                f"most of them in {forgotten.scope or 'no scope'}: perhaps somebody makes up names there",
            )
        if now >= self._next_save:
            self.save()

    def save(self) -> None:
        """Saves what has changed."""
        self._next_save = time.monotonic() + _SAVE_PERIOD
        if not self._changed or self._keeper is None:
            return
        self._changed = False
        self._summary.forget_old(int(time.time()))
        try:
            self._keeper.save(self._summary, self._summary.forgotten)
        except OSError as error:
            self._keeper.close()
            self._keeper = None
            self._say_not_kept(error)

    def answer(self) -> dict[str, Any]:
        """All, as kept_refusals.read() reads it."""
        return told(self._policy, self._summary, self._summary.forgotten)

    def most(self, count: int, since: int) -> list[dict[str, Any]]:
        """Those that were refused most often, of those since then, in seconds since 1970."""
        recent = (refused for refused in self._summary if refused.last >= since)
        return [refused.to_json() for refused in heapq.nlargest(count, recent, key=lambda its: its.count)]

    def close(self) -> None:
        """Saves, and lets another instance take over."""
        self.save()
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

"""How reading the policy went: at the start, and at each reload."""

from __future__ import annotations

import time


class ReloadHistory:
    """Times are seconds since the epoch."""

    def __init__(self, successful: bool) -> None:
        """`successful`: whether the file was right at the start; else an earlier policy was taken."""
        self.successful = successful
        self.last = self.last_success = time.time()
        self._counts = {"success": 0, "failure": 0}

    def note(self, problem: str) -> None:
        """A reload has come to its end. `problem`: empty where the policy was taken."""
        self.successful = not problem
        self.last = time.time()
        if not problem:
            self.last_success = self.last
        self._counts["failure" if problem else "success"] += 1

    def counts(self) -> dict[str, int]:
        """Reloads by result."""
        return dict(self._counts)

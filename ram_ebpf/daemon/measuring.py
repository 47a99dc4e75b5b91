"""Serves the policy's `metrics:`, which the main loop has no other part in than to say what it knows."""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ram_ebpf.policy.enforced import MetricsLike

if TYPE_CHECKING:
    from ram_ebpf.metrics.scraping import Scraping, Snapshot
    from ram_ebpf.metrics.server import MetricsServer

_RETRY_PERIOD = 10.0  # seconds until it is tried again where it could not be served
_log = logging.getLogger(__name__)

Say = Callable[[str, str], None]


class Measuring:
    """Metrics, where a policy wants them. One thread calls all of this, and none of it raises.

    What serves them is not loaded before they are wanted: it takes some time and memory.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._wanted: MetricsLike | None = None
        self._server: MetricsServer | None = None
        self.scraping: Scraping | None = None
        """Readable when somebody asks; None: nobody can."""
        self._due = float("inf")
        self._said = ""

    def use(self, wanted: MetricsLike | None) -> None:
        """From now on they are served there; None: nowhere."""
        if wanted == self._wanted:
            return
        before = self._server
        self._wanted, self._server, self._said = wanted, None, ""
        self._due = float("inf")
        if wanted is not None:
            self._try()  # before the other one goes, which may have the same path
        if before is not None:
            before.close()

    def follow(self, read: Callable[[], Snapshot]) -> None:
        """Answers those who ask, and tries again what could not be served."""
        if self.scraping is not None and self.scraping.has_news():
            self.scraping.answer_with(read)
        if time.monotonic() >= self._due:
            self._try()

    def _try(self) -> None:
        assert self._wanted is not None
        self._due = time.monotonic() + _RETRY_PERIOD
        try:
            # All of it at once: at the first scrape its files may be another version's.
            importlib.import_module("ram_ebpf.daemon.readings")
            from ram_ebpf.metrics.exposition import expose
            from ram_ebpf.metrics.scraping import Scraping
            from ram_ebpf.metrics.server import MetricsServer

            scraping = self.scraping = self.scraping or Scraping()
            self._server = MetricsServer(self._wanted, lambda accept: expose(scraping.scrape(), accept))
        except Exception as error:  # of a library that nothing else needs, or of the operating system
            if not isinstance(error, OSError):
                _log.exception("metrics cannot be served")
            if str(error) != self._said:
                self._said = str(error)
                self._say("no-metrics", f"metrics are not served, which is tried again: {error}")
            return
        self._due = float("inf")
        self._say("metrics", f"metrics are served at {self._server.where}")

    def close(self) -> None:
        """Serves no longer."""
        self.use(None)

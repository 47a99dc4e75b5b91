"""Which events become lines of the log: not what was just said, and no more than a reader or a disk takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ram_ebpf.daemon.limits import LineLimits, Source
from ram_ebpf.daemon.losses import Losses
from ram_ebpf.daemon.records import REFUSING, Describer, event_name
from ram_ebpf.daemon.repeats import Repeats
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dns.response import Answer
from ram_ebpf.policy.enforced import LogLike

Write = Callable[[dict[str, Any]], None]


class Telling:
    """From events to lines. One thread calls this."""

    def __init__(
        self,
        describer: Describer,
        write: Write,
        losses: Losses,
        options: LogLike,
        log_dns: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`log_dns`: lookups that changed nothing are told as well."""
        self._describer = describer
        self._write = write
        self._log_dns = log_dns
        self._repeats = Repeats(clock)
        self._limits = LineLimits(options, clock)
        self._losses = losses
        self.sum_up: Write = lambda record: None
        """Is called with each refusal, whether or not it has a line."""

    def use(self, options: LogLike) -> None:
        """Other limits from now on."""
        self._limits.options = options

    def tell(self, event: Event, answer: Answer | None) -> None:
        """Writes a line about an event, or counts it. `answer`: what it says, if it is a reply of DNS."""
        name = event_name(event)
        if not self._log_dns and (name == "dns" or event.reason is Reason.ALLOWED_UNASKED):
            return
        if self._repeats.is_told(event):
            return
        key = (event.verdict, event.reason, event.process, event.cgroup_id, event.scope)
        allowance = self._limits.of(key, lambda: self._source(name, event))
        refuses = event.verdict in REFUSING
        if not refuses and allowance.is_spent:  # before it is described, which costs most
            allowance.leave_out()
            return
        record = self._describer.describe(event, answer)
        if refuses:
            self.sum_up(record)
        if allowance.is_spent:
            allowance.leave_out()
        elif self._repeats.is_news(event, record):
            allowance.take()
            self._write(record)

    def _source(self, name: str, event: Event) -> Source:
        return Source(
            name,
            event.reason.slug,
            event.process,
            self._describer.cgroup_path(event.cgroup_id) if event.cgroup_id else None,
            self._describer.scope_label(event.scope),
        )

    def tell_request(self, record: dict[str, Any]) -> None:
        """Writes the line about a request to Docker's API, or counts it."""
        self.sum_up(record)
        source = Source(record["event"], record["reason"], scope=record.get("scope"))
        allowance = self._limits.of(source, lambda: source)
        if allowance.is_spent:
            allowance.leave_out()
        else:
            allowance.take()
            self._write(record)

    def report(self, at_once: bool = False) -> None:
        """Says what was left out and lost, when it is time or `at_once`."""
        for record in self._limits.report(at_once):
            self._write(record)
        self._losses.tell(self._limits.options.report_seconds, at_once)

    def counters(self) -> dict[str, int]:
        """How many decisions have no line of their own, since the start: `repeated` as the same had one just
        before, `suppressed` as there were too many of their kind, `lost` as they came too fast."""
        return {
            "repeated": self._repeats.suppressed,
            "suppressed": self._limits.left_out,
            "lost": self._losses.totals["events-lost"],
        }

"""Sends lines of the log elsewhere as well. Nobody waits for a receiver: what finds no room is counted."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

from ram_ebpf.daemon.losses import Losses
from ram_ebpf.policy.enforced import ExportLike, OtlpLike, SyslogLike

_MOST = 4096  # lines that wait for one receiver
_BATCH = 256
_ATTEMPTS = 5  # after which lines that nobody takes are dropped
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts
_LAST_WORDS = 2.0  # seconds in which the last lines are still sent

Say = Callable[[str, str], None]
Record = Mapping[str, Any]


class Sink(Protocol):
    """A receiver, for one thread alone."""

    unsendable: int
    """Lines that it can never be sent, since the start."""

    def send(self, records: Sequence[Record]) -> int:
        """Returns how many were dealt with, from the first one on. Raises OSError where none was."""

    def close(self) -> None:
        """Gives its connections back."""


class Export:
    """One receiver, with a thread and a queue of its own."""

    def __init__(self, sink: Sink) -> None:
        """Begins to send."""
        self._sink = sink
        self._waiting: deque[Record] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        self._told = 0
        self._end = float("inf")  # when to give up
        self.problem = ""
        """What went wrong last."""
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """A line is to be sent. Waits for nobody; where there is no room the oldest one goes."""
        with self._changed:
            if len(self._waiting) >= _MOST:
                self._waiting.popleft()
                self._dropped += 1
            self._waiting.append(record)
            self._changed.notify()

    def lost(self) -> int:
        """How many lines were not sent, since the last call."""
        with self._changed:
            total = self._dropped + self._sink.unsendable
            more, self._told = total - self._told, total
        return more

    def finish(self) -> None:
        """Nothing more comes: the thread ends when all is sent, within two seconds."""
        with self._changed:
            self._end = time.monotonic() + _LAST_WORDS
            self._changed.notify()

    def close(self) -> None:
        """As finish(), and waits for that. What is left then is lost."""
        self.finish()
        self._thread.join(_LAST_WORDS)
        with self._changed:
            self._dropped += len(self._waiting)
            self._waiting.clear()

    def _run(self) -> None:
        attempts, pause = 0, _FIRST_PAUSE
        while batch := self._next():
            dropped = self._dropped
            try:
                done = self._sink.send(batch)
                attempts, pause = 0, _FIRST_PAUSE
            except Exception as error:  # whatever a library raises, the thread goes on
                self.problem = str(error) or type(error).__name__
                done, attempts = 0, attempts + 1
            with self._changed:
                # Those that have made room meanwhile were the first of the batch, and are sent after all.
                gone = min(self._dropped - dropped, done)
                self._dropped -= gone
                self._remove(done - gone)
                if done:
                    continue
                if attempts == _ATTEMPTS:
                    attempts = 0
                    self._dropped += self._remove(len(batch))
                if self._changed.wait_for(self._is_ending, pause):
                    self._changed.wait_for(lambda: False, _FIRST_PAUSE / 5)
                pause = min(pause * 2, _LONGEST_PAUSE)
        self._sink.close()

    def _next(self) -> list[Record]:
        """The lines that are to be sent now, which stay in the queue until they are. Empty: it is the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_ending())
            return list(islice(self._waiting, _BATCH)) if time.monotonic() < self._end else []

    def _is_ending(self) -> bool:
        return self._end < float("inf")

    def _remove(self, count: int) -> int:
        """Of the first ones in the queue; how many there were."""
        count = min(count, len(self._waiting))
        for _ in range(count):
            self._waiting.popleft()
        return count


class Exports:
    """All receivers of a policy. One thread calls this."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._open: dict[SyslogLike | OtlpLike, Export] = {}

    def use(self, options: ExportLike) -> None:
        """These receivers from now on. Those that are among them already are not disturbed."""
        for gone in self._open.keys() - set(options.all):
            self._open.pop(gone).finish()
        for wanted in options.all:
            if wanted not in self._open:
                try:
                    self._open[wanted] = Export(_sink_of(wanted))
                except Exception as error:  # of libraries that nothing else needs
                    self._say("no-export", f"nothing is sent to {wanted}: {error}")

    def put(self, record: Record) -> None:
        """A line, with its time."""
        for export in self._open.values():
            export.put(record)

    def tell(self, losses: Losses) -> None:
        """Counts what was lost."""
        for options, export in self._open.items():
            losses.note(
                "export-lost", f"lines could not be sent to {options}: {export.problem}", export.lost()
            )

    def close(self) -> None:
        """Sends what is left, for two seconds each at most."""
        for export in self._open.values():
            export.finish()
        for export in self._open.values():
            export.close()


def _sink_of(options: SyslogLike | OtlpLike) -> Sink:
    wanted: Any = options
    if options.protocol == "syslog":
        from ram_ebpf.daemon.syslog import SyslogSink

        return SyslogSink(wanted)
    try:
        from ram_ebpf.daemon.otlp import OtlpSink
    except ImportError as error:
        cure = "install opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http where ram-ebpf is"
        raise ImportError(f"{cure} (the extra otlp): {error}") from error
    return OtlpSink(wanted)

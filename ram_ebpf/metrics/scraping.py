"""One scrape: the main loop says what it knows, and all that takes time is done here, in another thread."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ram_ebpf.metrics.census import Census, Counted
from ram_ebpf.metrics.sample import Sample
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.scopes.news import News

_PATIENCE = 5.0  # seconds for the main loop to say what it knows
_REUSED = 1.0  # seconds for which that is told again: however many ask, the main loop is asked no more often
_log = logging.getLogger(__name__)

Expose = Callable[[Iterable[Sample], str], tuple[str, bytes]]


class BusyError(RuntimeError):
    """The main loop has no time, or cannot say what it knows."""


@dataclass
class Snapshot:
    """What the main loop knows at one moment. `maps`: to be counted; they are this object's, to be closed."""

    samples: list[Sample] = field(default_factory=list)
    maps: list[Counted] = field(default_factory=list)
    rules: Sequence[RuleSet] = ()

    def close(self) -> None:
        """Gives the maps back."""
        for item in self.maps:
            item.map.close()
        self.maps.clear()


class _Question:
    """Of a thread that waits for the main loop, but not for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._answered = threading.Event()
        self._snapshot: Snapshot | None = None
        self._gone = False

    def answer(self, snapshot: Snapshot | None) -> None:
        with self._lock:
            if self._gone and snapshot is not None:
                snapshot.close()
            else:
                self._snapshot = snapshot
        self._answered.set()

    def wait(self, seconds: float) -> Snapshot | None:
        self._answered.wait(seconds)
        with self._lock:
            self._gone = True
            return self._snapshot


class Scraping(News):
    """Readable when somebody asks. One thread calls answer_with(), many may call scrape()."""

    def __init__(self, patience: float = _PATIENCE, reused: float = _REUSED) -> None:
        super().__init__()
        self._patience, self._reused = patience, reused
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        self._one = threading.Lock()
        self._census = Census()
        self._samples: list[Sample] = []
        self._taken = float("-inf")
        self._rules: tuple[Sequence[RuleSet], list[Sample]] = ((), [])

    def answer_with(self, read: Callable[[], Snapshot]) -> None:
        """Answers all who wait. Raises nothing."""
        while True:
            try:
                question = self._questions.get_nowait()
            except queue.Empty:
                return
            try:
                question.answer(read())
            except Exception:  # no question may end enforcement
                _log.exception("metrics could not be read")
                question.answer(None)

    def scrape(self) -> list[Sample]:
        """All samples, of which none is older than a second. Raises BusyError, OSError."""
        if not self._one.acquire(timeout=self._patience):
            raise BusyError
        try:
            if time.monotonic() - self._taken >= self._reused:
                self._samples = self._take()
                self._taken = time.monotonic()
            return self._samples
        finally:
            self._one.release()

    def _take(self) -> list[Sample]:
        question = _Question()
        self._questions.put(question)
        self.tell()
        snapshot = question.wait(self._patience)
        if snapshot is None:
            raise BusyError
        try:
            return [*snapshot.samples, *self._census.take(snapshot.maps), *self._count(snapshot.rules)]
        finally:
            snapshot.close()

    def _count(self, rules: Sequence[RuleSet]) -> list[Sample]:
        """Again only for other rules, of which there may be 100 000."""
        known, samples = self._rules
        if len(known) != len(rules) or any(a is not b for a, b in zip(known, rules, strict=True)):
            samples = list(count_rules(rules))
            self._rules = rules, samples
        return samples


def count_rules(rules: Iterable[RuleSet]) -> Iterator[Sample]:
    """How many there are of each kind in all of them, each counted once."""
    found: dict[str, set[str]] = {kind: set() for kind in ("name", "address", "denied", "catalogue", "proxy")}
    for made in rules:
        for rule in made.names:
            kind = "catalogue" if rule.known else "denied" if rule.deny else "proxy" if rule.proxy else "name"
            found[kind].add(rule.pattern.text)
        for address in made.addresses:
            found["proxy" if address.proxy else "address"].add(str(address.network))
    for kind, texts in found.items():
        yield Sample("ram_ebpf_rules", len(texts), (kind,))

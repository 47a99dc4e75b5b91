"""Who asks for metrics, and a main loop that has no time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from ram_ebpf.dataplane.maps import Map
from ram_ebpf.metrics.catalogue import METRICS
from ram_ebpf.metrics.census import Counted
from ram_ebpf.metrics.exposition import expose
from ram_ebpf.metrics.sample import Sample
from ram_ebpf.metrics.scraping import BusyError, Scraping, Snapshot, count_rules
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.scope import Posture
from ram_ebpf.policy.scope_rules import rules_of
from ram_ebpf.policy.terms import Terms

SAMPLES = [Sample(metric.name, 7, tuple("x" for _ in metric.labels)) for metric in METRICS]


class Loop:
    """A main loop that does nothing else."""

    def __init__(self, scraping: Scraping, read: Callable[[], Snapshot]) -> None:
        self._scraping, self._read = scraping, read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            if self._scraping.has_news():
                self._scraping.answer_with(self._read)
            time.sleep(0.002)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Closed(Map):
    """A map of which one only knows whether it was given back."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_asked_once_a_moment() -> None:
    asked = 0

    def read() -> Snapshot:
        nonlocal asked
        asked += 1
        return Snapshot([Sample("ram_ebpf_places_failed", asked)])

    scraping = Scraping(reused=0.2)
    with Loop(scraping, read):
        first = scraping.scrape()
        assert [scraping.scrape() for _ in range(20)] == [first] * 20
        assert asked == 1
        time.sleep(0.25)
        assert Sample("ram_ebpf_places_failed", 2) in scraping.scrape()


def test_a_loop_without_time() -> None:
    """Whoever asks is told soon, and what is answered too late is given back."""
    scraping = Scraping(patience=0.1)
    started = time.monotonic()
    with pytest.raises(BusyError):
        scraping.scrape()
    assert time.monotonic() - started < 2
    late = Closed()
    scraping.answer_with(lambda: Snapshot(maps=[Counted(("learned", 3), late)]))
    assert late.closed == 1


def test_what_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> Snapshot:
        raise KeyError("a surprise")

    scraping = Scraping()
    with Loop(scraping, fail), pytest.raises(BusyError):
        scraping.scrape()
    assert "metrics could not be read" in caplog.text


def families(text: bytes) -> Iterator[str]:
    for family in text_string_to_metric_families(text.decode()):
        yield from (sample.name for sample in family.samples)


def test_both_formats() -> None:
    media_type, text = expose(SAMPLES, "")
    assert media_type.startswith("text/plain; version=0.0.4")
    names = list(families(text))
    assert {metric.name for metric in METRICS} <= set(names)
    assert "process_resident_memory_bytes" in names
    media_type, text = expose(SAMPLES, "application/openmetrics-text;version=1.0.0,text/plain;q=0.1")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    found = list(parse_openmetrics(text.decode()))  # type: ignore[no-untyped-call]
    assert len(found) >= len(METRICS)


def test_rules_are_counted_once() -> None:
    text = (
        "version: 1\n"
        "registries: [{host: a.example}, {host: b.example}, {address: 10.0.0.0/8, ports: [5000]}]\n"
        "denied: [c.a.example]\nproxies: [{host: p.example, ports: [3128]}]\n"
    )
    policy = parse_policy(text.encode(), "p.yaml")
    made = [rules_of(policy, load_catalogue(), Terms(posture)) for posture in Posture]
    counted = {sample.labels[0]: sample.value for sample in count_rules(made)}
    known = counted.pop("catalogue")
    assert known > 10
    assert counted == {"name": 2, "address": 1, "denied": 1, "proxy": 1}
    assert Sample("ram_ebpf_rules", 0, ("catalogue",)) in list(count_rules(made[:1]))

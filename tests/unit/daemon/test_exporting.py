"""Lines that are sent elsewhere, to receivers that read them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.daemon import exporting
from ram_ebpf.daemon.exporting import Export, Exports
from ram_ebpf.daemon.losses import Losses
from ram_ebpf.daemon.syslog import SyslogSink, message_of
from ram_ebpf.policy.export import ExportOptions, OtlpExport, SyslogExport
from ram_ebpf.policy.loader import parse_policy

from .receivers import Collector, Message, Syslog

TIME = "2026-11-26T12:00:00.250Z"
RECORD: dict[str, Any] = {
    "time": TIME,
    "event": "denied",
    "verdict": "deny",
    "reason": "denied-unknown-address",
    "host": "evil.example",
    "address": "192.0.2.1",
    "port": 443,
    "protocol": "tcp",
    "explanation": "evil.example is not in the policy",
}


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


def numbered(count: int) -> list[dict[str, Any]]:
    return [{**RECORD, "port": number} for number in range(1, count + 1)]


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(exporting, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(exporting, "_LAST_WORDS", 1.0)


@pytest.fixture
def said() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def exports(said: list[tuple[str, str]]) -> Iterator[Exports]:
    made = Exports(lambda event, text: said.append((event, text)))
    yield made
    made.close()


@pytest.fixture(params=["unix", "udp", "tcp"])
def syslog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Syslog]:
    made = Syslog(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def options(text: str) -> ExportOptions:
    policy = f"version: 1\nregistries: [docker-hub]\nexport: {text}\n"
    return parse_policy(policy.encode(), "p.yaml").export


def lost(exports: Exports) -> list[dict[str, Any]]:
    lines = list[dict[str, Any]]()

    def say(event: str, explanation: str, *, count: int) -> None:
        lines.append({"event": event, "explanation": explanation, "count": count})

    losses = Losses(say)
    exports.tell(losses)
    losses.tell(0)
    return lines


# --- syslog


def test_syslog(exports: Exports, syslog: Syslog) -> None:
    exports.use(options(f"{{ syslog: {syslog.options} }}"))
    exports.put({**RECORD, "addresses": ["a", "b"], "counters": {"x": 1}})
    exports.put({"time": TIME, "event": "ready", "explanation": "governing"})
    assert eventually(lambda: len(syslog.received) == 2)
    first, second = syslog.received
    fields = {key: [str(value)] for key, value in RECORD.items() if key != "time"}
    assert first.fields == {**fields, "addresses": ["a", "b"], "counters": ['{"x": 1}']}
    assert (first.priority, first.event) == (3 * 8 + 4, "denied")
    assert first.text == "DENIED evil.example (192.0.2.1:443) tcp a b: evil.example is not in the policy"
    assert (second.priority, second.event, second.text) == (3 * 8 + 6, "ready", "READY: governing")
    assert lost(exports) == []


@pytest.mark.parametrize(
    "value",
    [
        '"] evil',
        "a\\",
        "a\n<0>1 - - - - - -",
        'a" reason="x',
        "]",
        "\x1b[2J\0\u2028",
        "\udcff",
        "zürich 東京",
        "",
    ],
)
def test_names_forge_nothing(value: str) -> None:
    found = Message.parse(message_of({**RECORD, "host": value, "process": value}, "a b\n"))
    assert set(found.fields) == {*RECORD, "process"} - {"time"}
    assert found.fields["host"] == found.fields["process"]
    assert all(len(values) == 1 and values[0].isprintable() for values in found.fields.values())
    assert found.text.isprintable()


def test_receiver_that_comes_back(exports: Exports, tmp_path: Path) -> None:
    """What nobody took waits; a connection that has ended is noticed."""
    syslog = Syslog("tcp", tmp_path)
    exports.use(options(f"{{ syslog: {syslog.options} }}"))
    exports.put(RECORD)
    assert eventually(lambda: len(syslog.received) == 1)
    syslog.close()
    for record in numbered(20):
        exports.put(record)
    time.sleep(0.1)
    syslog.open()
    assert eventually(lambda: len(syslog.received) == 21)
    syslog.close()
    assert [message.fields["port"] for message in syslog.received[1:]] == [[str(n)] for n in range(1, 21)]
    assert lost(exports) == []


def test_nobody_there(exports: Exports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue has a bound, and each line that is dropped is counted."""
    monkeypatch.setattr(exporting, "_MOST", 100)
    exports.use(options(f"{{ syslog: {{ unix: {tmp_path}/none }} }}"))
    began = time.monotonic()
    for record in numbered(1000):
        exports.put(record)
    assert time.monotonic() - began < 0.5
    assert eventually(lambda: bool(exports._open) and bool(next(iter(exports._open.values())).problem))
    (line,) = lost(exports)
    assert line["event"] == "export-lost"
    sentence = f"{line['count']} lines could not be sent to syslog at {tmp_path}/none: "
    assert line["explanation"] == f"{sentence}[Errno 2] No such file or directory"
    count = int(line["count"])

    def all_counted() -> bool:
        nonlocal count
        count += sum(int(line["count"]) for line in lost(exports))
        return count == 1000

    assert eventually(all_counted)


def test_more_than_a_datagram_holds(tmp_path: Path) -> None:
    syslog = Syslog("udp", tmp_path)
    sink = SyslogSink(SyslogExport(udp="127.0.0.1", port=syslog.port))
    long = {**RECORD, "explanation": "x" * 70_000}
    assert sink.send([RECORD, long, RECORD]) == 3
    assert sink.unsendable == 1
    assert eventually(lambda: len(syslog.received) == 2)
    sink.close()
    syslog.close()


# --- OpenTelemetry


def test_otlp(exports: Exports, collector: Collector) -> None:
    exports.use(ExportOptions(otlp=OtlpExport(endpoint=collector.endpoint)))
    exports.put({**RECORD, "host": "evil\n.example", "addresses": ["a", "b"], "counters": {"x": 1}})
    assert eventually(lambda: bool(collector.requests))
    ((whole,),) = [request.resource_logs for request in collector.requests]
    about = {item.key: item.value.string_value for item in whole.resource.attributes}
    assert about["service.name"] == "ram-ebpf"
    ((one,),) = [scope.log_records for scope in whole.scope_logs]
    assert (one.severity_number, one.event_name) == (13, "ram_ebpf.denied")
    assert one.time_unix_nano == 1795694400_250_000_000
    assert one.body.string_value.startswith(
        "DENIED evil\N{REPLACEMENT CHARACTER}.example (192.0.2.1:443) tcp"
    )
    found = {item.key: item.value for item in one.attributes}
    assert found["ram_ebpf.reason"].string_value == "denied-unknown-address"
    assert found["ram_ebpf.host"].string_value == "evil\N{REPLACEMENT CHARACTER}.example"
    assert found["ram_ebpf.port"].int_value == 443
    assert [item.string_value for item in found["ram_ebpf.addresses"].array_value.values] == ["a", "b"]
    assert found["ram_ebpf.counters"].string_value == '{"x": 1}'
    assert "ram_ebpf.time" not in found


def test_many_lines_are_few_requests(exports: Exports, collector: Collector) -> None:
    collector.hold.clear()
    exports.use(ExportOptions(otlp=OtlpExport(endpoint=collector.endpoint)))
    began = time.monotonic()
    for record in numbered(500):
        exports.put(record)
    assert time.monotonic() - began < 0.5  # the collector has not answered yet
    collector.hold.set()
    ports = list[int]()

    def all_there() -> bool:
        ports[:] = [
            next(item.value.int_value for item in one.attributes if item.key == "ram_ebpf.port")
            for request in collector.requests
            for one in request.resource_logs[0].scope_logs[0].log_records
        ]
        return len(ports) == 500

    assert eventually(all_there)
    assert ports == list(range(1, 501))
    assert len(collector.requests) < 10


def test_a_collector_that_takes_nothing(
    exports: Exports, collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its reason is in the line that tells of it, and nowhere else."""
    collector.status = 400
    exports.use(ExportOptions(otlp=OtlpExport(endpoint=collector.endpoint)))
    exports.put(RECORD)
    found: list[dict[str, Any]] = []

    def is_told() -> bool:
        found.extend(lost(exports))
        return bool(found)

    assert eventually(is_told, 10)
    assert found[0]["count"] == 1
    assert f"to otlp at {collector.endpoint}: " in found[0]["explanation"]
    assert "400" in found[0]["explanation"]
    assert capfd.readouterr().err == ""


def test_without_the_library(
    exports: Exports, said: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ram_ebpf.daemon.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry._logs", None)
    exports.use(ExportOptions(otlp=OtlpExport(endpoint="http://c.example")))
    ((event, text),) = said
    assert event == "no-export"
    assert text.startswith("nothing is sent to otlp at http://c.example: install opentelemetry-sdk and ")
    exports.put(RECORD)


def test_the_library_is_not_loaded_before() -> None:
    code = (
        "import sys, ram_ebpf.daemon.controller as c, ram_ebpf.daemon.exporting as e\n"
        "from ram_ebpf.policy.export import *\n"
        "e._sink_of(SyslogExport(unix='/dev/log'))\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- all of them


def test_other_receivers(exports: Exports, tmp_path: Path) -> None:
    """As a reload brings them: those that stay keep their queue, and those that go send what they have."""
    first, second = Syslog("unix", tmp_path), Syslog("udp", tmp_path)
    exports.use(options(f"{{ syslog: {first.options} }}"))
    (kept,) = exports._open.values()
    exports.use(options(f"{{ syslog: {first.options}, otlp: {{ endpoint: 'http://127.0.0.1:9' }} }}"))
    assert kept in exports._open.values()
    exports.put(RECORD)
    exports.use(options(f"{{ syslog: {second.options} }}"))
    exports.put(RECORD)
    assert eventually(lambda: len(first.received) == len(second.received) == 1)
    exports.use(options("{}"))
    assert exports._open == {}
    first.close()
    second.close()


class Stuck:
    """A receiver that never answers."""

    unsendable = 0

    def send(self, records: object) -> int:
        time.sleep(30)
        raise OSError

    def close(self) -> None:
        return


def test_the_end_does_not_wait_for_long() -> None:
    export = Export(Stuck())
    export.put(RECORD)
    began = time.monotonic()
    export.close()
    assert time.monotonic() - began < 1.5
    assert export.lost() == 1


def test_the_last_lines_are_sent(exports: Exports, syslog: Syslog) -> None:
    exports.use(options(f"{{ syslog: {syslog.options} }}"))
    for record in numbered(50):  # as many as a UDP receiver has room for that is not quick
        exports.put(record)
    exports.close()
    assert eventually(lambda: len(syslog.received) == 50)
    assert lost(exports) == []

"""The name that a connection begins with, and what becomes of the connection.

At a device, where a test run remembers connections; test_wire_sockets.py has real sockets in a cgroup.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import UDP

from ram_ebpf.dataplane.abi import Mode, Reason, Stage, Verdict
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.settings import Settings

from .beginnings import DENIED_NAMES, PRIVATE, REGISTRIES, THERE, Connection, hello
from .support import CLIENT, Bench, ip

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane
PLACE = "device"


@pytest.fixture
def source(opened: Bench) -> Iterator[EventSource]:
    source = EventSource(opened.plane)
    source.drain(lambda event: None)
    yield source
    source.close()


def taken(source: EventSource) -> list[Event]:
    events: list[Event] = []
    source.drain(events.append)
    return events


ALLOWED = ["registry.test", "REGISTRY.Test", "a.one.test", "a.deep.test", "a.b.deep.test", "edge-7.glob.test"]
REFUSED = [
    "evil.example",
    "xregistry.test",
    "registry.test.evil.example",
    "one.test",
    "a.b.one.test",
    "deep.test",
    "denied.deep.test",
    "edge-7.a.glob.test",
    "other.test",  # on another port
    "a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61,
]


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed_name(connection: Connection, name: str) -> None:
    assert connection.sends(hello(name))
    assert connection.bench.counted() == {Reason.ALLOWED_NAME: 1}
    assert connection.stage is Stage.NAMED


@pytest.mark.parametrize("name", REFUSED)
def test_refused_name(connection: Connection, source: EventSource, name: str) -> None:
    sent = hello(name)
    assert not connection.sends(sent)
    assert connection.bench.counted() == {Reason.NAME_MISMATCH: 1}
    assert connection.stage is Stage.CUT
    (event,) = taken(source)
    assert event.reason is Reason.NAME_MISMATCH
    assert event.beginning is not None
    assert event.beginning.name == name
    assert sent.startswith(event.beginning.sent)
    assert (str(event.beginning.local), event.beginning.local_port) == (CLIENT, 40000)
    assert not connection.sends(hello("registry.test"))
    assert connection.bench.counted() == {Reason.NAME_MISMATCH: 1}


@pytest.mark.parametrize(("name", "passes"), [("private.test", True), ("registry.test", False)])
def test_private_address(opened: Bench, name: str, passes: bool) -> None:
    """A name that is allowed elsewhere has no business at an address that another one may have."""
    assert Connection(opened, PRIVATE).open().sends(hello(name)) is passes


def test_no_name(connection: Connection, source: EventSource) -> None:
    sent = hello(None)
    assert not connection.sends(sent)
    assert connection.bench.counted() == {Reason.DENIED_NOT_NAMED: 1}
    (event,) = taken(source)
    assert event.beginning is not None
    assert (event.beginning.name, event.beginning.sent) == (None, sent)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="SSH"),
        pytest.param(bytes.fromhex("802e010002001500000010"), id="SSL 2"),
        pytest.param(b"\x15\x03\x01\x00\x02\x01\x00", id="an alert"),
        pytest.param(b"\x17\x03\x03\x00\x02\x01\x00", id="application data"),
        pytest.param(b"\x00", id="a zero"),
        pytest.param(b"\xff" * 1400, id="noise"),
    ],
)
def test_what_has_no_name(connection: Connection, sent: bytes) -> None:
    assert not connection.sends(sent)
    assert connection.bench.counted() == {Reason.DENIED_NOT_NAMED: 1}
    assert connection.stage is Stage.CUT


def test_audit_mode(opened: Bench, source: EventSource) -> None:
    with opened.configured(Settings(mode=Mode.AUDIT)):
        connection = Connection(opened).open()
        assert connection.sends(hello("evil.example"))
        assert connection.sends(b"more", 2000)
    (event,) = taken(source)
    assert (event.reason, event.verdict) == (Reason.NAME_MISMATCH, Verdict.WOULD_DENY)


def test_names_that_are_not_read(opened: Bench) -> None:
    with opened.configured(Settings(read_names=False)):
        connection = Connection(opened)
        assert connection.syn(hello("evil.example"))
        assert connection.sends(b"whatever")
        assert opened.egress(ip(THERE) / UDP(sport=1, dport=443) / b"quic")
    assert not opened.egress(ip(THERE) / UDP(sport=2, dport=443) / b"quic")
    assert opened.counted()[Reason.DENIED_NOT_NAMED] == 1


def test_address_that_is_allowed_itself(opened: Bench) -> None:
    """Whatever name it has beside that."""
    opened.open("learned", "192.0.2.7", (443, 5000), 300, opened.rule_of("registry.test"))
    connection = Connection(opened, "192.0.2.7")
    assert connection.syn()
    assert connection.sends(b"whatever")
    assert connection.stage is Stage.PASSES

"""What is asked of a permitted HTTP proxy: the target of CONNECT, and what goes through the tunnel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ram_ebpf.dataplane.abi import Reason, Stage
from ram_ebpf.dataplane.events import Event, EventSource

from . import beginnings
from .beginnings import DENIED_NAMES, Connection, hello
from .hello_parts import with_names
from .support import Bench

__all__ = ["DENIED_NAMES"]  # read by the fixture that loads the plane
PLACE = "device"

REGISTRIES = f"""{beginnings.REGISTRIES}
proxies:
  - host: proxy.test
    ports: [3128, 443]
  - address: 203.0.113.0/28
    ports: [3128]
"""
BY_NAME, BY_ADDRESS, NO_PROXY = "198.51.100.9", "203.0.113.9", "198.51.100.7"

TARGET = b"CONNECT registry.test:443 HTTP/1.1\r\n"
CONNECT = TARGET + b"Host: registry.test:443\r\nUser-Agent: Go-http-client/1.1\r\n\r\n"
EVIL = CONNECT.replace(b"registry.test", b"evil.example")
HELLO, EVIL_HELLO = hello("registry.test"), hello("evil.example")
TWO_NAMES = with_names(hello(None), b"registry.test", b"evil.example")
GET = b"GET /v2/ HTTP/1.1\r\nHost: registry.test\r\n\r\n"


@pytest.fixture
def opened(bench: Bench) -> Bench:
    beginnings.opened_at_device(bench)
    bench.open("learned", BY_NAME, (443, 3128), 3600, bench.rule_of("proxy.test"))
    return bench


def fresh(opened: Bench, there: str = BY_NAME, port: int = 3128) -> Connection:
    connection = Connection(opened, there, port)
    connection.forget()
    return connection.open()


@pytest.fixture(params=[BY_NAME, BY_ADDRESS])
def proxy(opened: Bench, request: pytest.FixtureRequest) -> Connection:
    return fresh(opened, request.param)


def taken(opened: Bench, sent: bytes, there: str = BY_NAME) -> Event:
    """The one event about it."""
    source = EventSource(opened.plane)
    events: list[Event] = []
    try:
        source.drain(lambda event: None)
        fresh(opened, there).sends(sent)
        source.drain(events.append)
    finally:
        source.close()
    (event,) = events
    return event


def pieces(sent: bytes, *cuts: int) -> Iterator[tuple[bytes, int]]:
    for start, end in zip((0, *cuts), (*cuts, len(sent)), strict=True):
        yield sent[start:end], start


def test_tunnel(proxy: Connection) -> None:
    """What comes in the tunnel is read as well."""
    stages = []
    for piece, at in pieces(CONNECT + HELLO, len(CONNECT)):
        assert proxy.sends(piece, at)
        stages.append(proxy.stage)
    assert stages == [Stage.UNNAMED, Stage.NAMED]
    assert proxy.sends(b"\x17\x03\x03whatever", len(CONNECT + HELLO))


ALLOWED = [
    pytest.param(CONNECT + HELLO, id="at once"),
    pytest.param(CONNECT + CONNECT + HELLO, id="once more, with credentials"),
    pytest.param(CONNECT.replace(b"443", b"5000") + HELLO, id="another port that is allowed"),
    pytest.param(TARGET + b"\r\n" + HELLO, id="without Host"),
    pytest.param(TARGET + b"Host: evil.example\r\n\r\n" + HELLO, id="Host, which no proxy goes by"),
    pytest.param(b"CONNECT registry.test:443 HTTP/1.0\n\n" + HELLO, id="line feeds alone"),
    pytest.param(b"CONNECT REGISTRY.test.:00443 HTTP/1.1\r\n\r\n" + HELLO, id="another case, a dot, zeros"),
    pytest.param(TARGET + b"Proxy-Authorization: Basic " + b"a" * 1500 + b"\r\n\r\n" + HELLO, id="long"),
    pytest.param(b"CONNECT a.one.test:443 HTTP/1.1\r\n\r\n" + HELLO, id="two names that are allowed"),
    pytest.param(b"CONNECT private.test:443 HTTP/1.1\r\n\r\n" + hello("private.test"), id="private"),
]
MISMATCH = [
    pytest.param(EVIL, "evil.example", id="another name"),
    pytest.param(CONNECT + EVIL, "evil.example", id="behind one that is allowed"),
    pytest.param(CONNECT + EVIL_HELLO, "evil.example", id="in the tunnel"),
    pytest.param(CONNECT + TWO_NAMES, "evil.example", id="in the tunnel, behind one that is allowed"),
    pytest.param(CONNECT.replace(b":443", b":22"), "registry.test", id="a port that is not allowed"),
    pytest.param(CONNECT.replace(b":443", b":3128"), "registry.test", id="the proxy's port"),
    pytest.param(CONNECT.replace(b"registry.test", b"denied.deep.test"), "denied.deep.test", id="denied"),
    pytest.param(CONNECT.replace(b"registry.test", b"198.51.100.7"), "198.51.100.7", id="an address"),
    pytest.param(CONNECT.replace(b"registry.test", b"proxy.test"), "proxy.test", id="the proxy itself"),
    pytest.param(
        CONNECT.replace(b"registry.test", b"registry.test@evil.example"),
        "registry.test@evil.example",
        id="user information",
    ),
]
NOT_NAMED = [
    pytest.param(GET, id="a request to the proxy itself"),
    pytest.param(b"GET http://registry.test/ HTTP/1.1\r\nHost: registry.test\r\n\r\n", id="absolute-form"),
    pytest.param(HELLO, id="TLS to the proxy"),
    pytest.param(hello("proxy.test"), id="TLS to the proxy by its name"),
    pytest.param(CONNECT + GET, id="a request in the tunnel"),
    pytest.param(CONNECT + b"SSH-2.0-OpenSSH_9.6\r\n", id="SSH in the tunnel"),
    pytest.param(CONNECT + hello(None), id="TLS without a name in the tunnel"),
    pytest.param(b"CONNECT registry.test HTTP/1.1\r\n\r\n", id="no port"),
    pytest.param(b"CONNECT registry.test: HTTP/1.1\r\n\r\n", id="an empty port"),
    pytest.param(b"CONNECT registry.test:0 HTTP/1.1\r\n\r\n", id="port 0"),
    pytest.param(b"CONNECT registry.test:65979 HTTP/1.1\r\n\r\n", id="a port too great"),
    pytest.param(b"CONNECT registry.test:443443 HTTP/1.1\r\n\r\n", id="a port too long"),
    pytest.param(b"CONNECT registry.test:443@evil.example:443 HTTP/1.1\r\n\r\n", id="more behind the port"),
    pytest.param(CONNECT.replace(b"registry.test", b"http://registry.test"), id="a scheme"),
    pytest.param(b"CONNECT :443 HTTP/1.1\r\n\r\n", id="no name"),
    pytest.param(b"CONNECT [2001:db8::7]:443 HTTP/1.1\r\n\r\n", id="an IPv6 address"),
    pytest.param(b"CONNECT  registry.test:443 HTTP/1.1\r\n\r\n", id="two spaces"),
    pytest.param(b"connect registry.test:443 HTTP/1.1\r\n\r\n", id="lower case"),
    pytest.param(b"CONNECT registry.test:443\r\n\r\n", id="no version"),
    pytest.param(TARGET + b" evil.example\r\n\r\n", id="a folded field"),
    pytest.param(TARGET + b"Host\r\n\r\n", id="no colon"),
    pytest.param(TARGET + b"A: b\rC: d\r\n\r\n", id="CR alone"),
    pytest.param(TARGET + b"\rA\r\n\r\n", id="half an empty line"),
    pytest.param(TARGET + b" \r\n" + HELLO, id="an empty line with a space"),
]


@pytest.mark.parametrize("sent", ALLOWED)
def test_allowed(proxy: Connection, sent: bytes) -> None:
    assert proxy.sends(sent)
    assert proxy.bench.counted() == {Reason.ALLOWED_NAME: 1}
    assert proxy.stage is Stage.NAMED


@pytest.mark.parametrize(("sent", "name"), MISMATCH)
def test_mismatch(opened: Bench, sent: bytes, name: str) -> None:
    event = taken(opened, sent)
    assert event.reason is Reason.NAME_MISMATCH
    assert event.beginning is not None
    assert event.beginning.name == name
    proxy = fresh(opened, BY_ADDRESS)
    assert not proxy.sends(sent)
    assert proxy.stage is Stage.CUT


@pytest.mark.parametrize("sent", NOT_NAMED)
def test_not_named(proxy: Connection, sent: bytes) -> None:
    assert not proxy.sends(sent)
    (reason,) = proxy.bench.counted()
    assert reason is Reason.DENIED_NOT_NAMED
    assert proxy.stage is Stage.CUT


def test_no_proxy(opened: Bench) -> None:
    """A registry is not to become a way to others."""
    for sent in (CONNECT, CONNECT + HELLO):
        connection = fresh(opened, NO_PROXY, 443)
        assert not connection.sends(sent)
        assert opened.counted() == {Reason.DENIED_NOT_NAMED: 1}


def test_name_of_the_proxy(opened: Bench) -> None:
    """Where a registry and a proxy share an address, TLS to the proxy would hide what it is asked for."""
    connection = fresh(opened, NO_PROXY, 443)
    assert not connection.sends(hello("proxy.test"))
    assert opened.counted() == {Reason.NAME_MISMATCH: 1}


def test_port_that_the_proxy_has_not(opened: Bench) -> None:
    assert not Connection(opened, BY_ADDRESS, 3129).syn()
    assert not Connection(opened, "203.0.113.16", 3128).syn()


@pytest.mark.parametrize(
    ("sent", "stage"),
    [(CONNECT + HELLO, Stage.NAMED), (CONNECT + EVIL_HELLO, Stage.CUT), (EVIL + HELLO, Stage.CUT)],
)
def test_every_split(opened: Bench, sent: bytes, stage: Stage) -> None:
    end = len(CONNECT) + 200
    for cut in range(1, end):
        connection = fresh(opened)
        passed = [connection.sends(piece, at) for piece, at in pieces(sent, cut)]
        assert all(passed) is (stage is Stage.NAMED), cut
        assert connection.stage is stage, cut
    connection = fresh(opened)
    for piece, at in pieces(sent, *range(1, end)):
        connection.sends(piece, at)
    assert connection.stage is stage


def test_repeated_otherwise(opened: Bench) -> None:
    """What was read is not replaced by another target before the proxy has it."""
    for sent in (CONNECT, CONNECT + HELLO):
        connection = fresh(opened)
        assert connection.sends(sent)
        assert not connection.sends(sent.replace(b"registry", b"evilhost"))
        assert connection.sends(sent)


def test_too_many(opened: Bench) -> None:
    """More of them than are read: nothing of it leaves."""
    many = (b"CONNECT registry.test:443 HTTP/1.1\n\n" * 100)[:1400]
    assert not fresh(opened).sends(many)
    assert opened.counted() == {Reason.DENIED_SEGMENT: 1}
    assert fresh(opened).sends(many[: 36 * 5] + HELLO)


def test_too_long(opened: Bench) -> None:
    sent = TARGET + b"A: " + b"a" * 4096 + b"\r\n\r\n" + HELLO
    connection = fresh(opened)
    passed = [connection.sends(sent[at : at + 1000], at) for at in range(0, len(sent), 1000)]
    assert passed[:4] == [True] * 4
    assert not any(passed[4:])
    assert connection.stage is Stage.CUT

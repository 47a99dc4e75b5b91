"""Posture registries: a name on the wire that is a refused registry's, at whatever address."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scapy.layers.inet import UDP

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason, Stage
from ram_ebpf.dataplane.devices import BEHIND
from ram_ebpf.dataplane.settings import Settings

from .beginnings import THERE, Connection, hello
from .hello_parts import with_names
from .support import Bench, ip

REGISTRIES = """
  - host: registry.test
    ports: [443, 5000]
"""
DENIED_NAMES = """
  - denied.test
  - "**.denied.test"
"""
RECOGNITION = Settings(unknown=abi.Unknown.ALLOW, registry_ports=(5000,), asked_ports=(80, 443))

PLACE = "device"
NOWHERE = "203.0.113.9"


@pytest.fixture(params=[THERE, NOWHERE], ids=["learned", "unknown"])
def connection(request: pytest.FixtureRequest, bench: Bench) -> Connection:
    """To an address that a name opened, and to one that nobody knows."""
    bench.scope.programs_for(BEHIND)
    bench.open("learned", THERE, (443, 5000), 3600, bench.rule_of("registry.test"))
    connection = Connection(bench, request.param)
    connection.forget()
    return connection.open()


def request(name: str) -> bytes:
    return f"GET /v2/ HTTP/1.1\r\nHost: {name}\r\n\r\n".encode()


def connect(name: str) -> bytes:
    """To whatever is a proxy."""
    return f"CONNECT {name}:443 HTTP/1.1\r\nHost: {name}:443\r\n\r\n".encode()


def tunnel(name: str) -> bytes:
    return connect("website.example") + hello(name)


def absolute(name: str) -> bytes:
    return f"GET http://{name}/v2/ HTTP/1.1\r\nHost: website.example\r\n\r\n".encode()


@pytest.mark.parametrize("name", ["denied.test", "a.b.denied.test", "DENIED.test", "ghcr.io", "quay.io"])
@pytest.mark.parametrize("begins", [hello, request, connect, tunnel, absolute])
def test_refused_registry(connection: Connection, begins: Callable[[str], bytes], name: str) -> None:
    """One that is denied, or of the catalogue."""
    sent = begins(name)
    assert connection.sends(sent[:10])
    assert not connection.sends(sent[10:], 10)
    assert connection.stage is Stage.CUT
    assert Reason.NAME_MISMATCH in connection.bench.counted()


UNNAMED = hello(None)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(with_names(UNNAMED, b"website.example", b"denied.test"), id="behind another name"),
        pytest.param(
            with_names(UNNAMED, b"registry.test", b"denied.test", padding=2000), id="behind an allowed one"
        ),
        pytest.param(with_names(UNNAMED, b"denied.test", b"website.example"), id="in front of another name"),
        pytest.param(with_names(UNNAMED, b"denied.test", padding=5000), id="in front of more than is read"),
    ],
)
def test_refused_registry_among_several(connection: Connection, sent: bytes) -> None:
    """Some servers believe the first name, and some the last."""
    for at in range(0, len(sent), 1400):
        connection.sends(sent[at : at + 1400], at)
    assert connection.stage is Stage.CUT
    assert Reason.NAME_MISMATCH in connection.bench.counted()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(hello("registry.test"), id="an allowed registry"),
        pytest.param(with_names(UNNAMED, b"registry.test", b"website.example"), id="two names"),
        pytest.param(hello("website.example"), id="another name"),
        pytest.param(hello(None), id="no name"),
        pytest.param(request("website.example"), id="HTTP"),
        pytest.param(connect("registry.test") + hello("registry.test"), id="an allowed one by a proxy"),
        pytest.param(connect("website.example") + b"SSH-2.0-OpenSSH_9.6\r\n", id="SSH by a proxy"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="SSH"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"\0" * 1400, id="anything"),
    ],
)
def test_the_rest_passes(connection: Connection, sent: bytes) -> None:
    assert connection.sends(sent)
    assert connection.sends(b"more", len(sent))
    assert connection.stage is Stage.NAMED


def test_beginning_that_was_not_seen(connection: Connection) -> None:
    connection.forget()
    assert connection.sends(hello("website.example"))


def test_udp_passes(bench: Bench) -> None:
    bench.open("learned", THERE, (443, 5000), 3600, bench.rule_of("registry.test"))
    assert bench.egress(ip(THERE) / UDP(sport=1, dport=443) / b"quic")

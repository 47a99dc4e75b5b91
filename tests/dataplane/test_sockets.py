"""What only real sockets show: replies too long for test runs, connect(), many datagrams in one call."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Hook, Reason
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.trusted import TrustedResolver

from . import messages as m
from .exchanges import DENIED_NAMES, ONE, REGISTRIES, ask, many, tell
from .messages import address, message, question
from .support import Bench
from .wire import RESOLVER, Wire, governed, inside

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

_UDP_SEGMENT = 103


@pytest.fixture(scope="module")
def made(loaded: Bench) -> Iterator[Wire]:
    with governed(loaded) as wire:
        yield wire


@pytest.fixture
def wire(made: Wire, bench: Bench) -> Iterator[Wire]:
    """Nothing is left of other tests, and the resolver is trusted as one elsewhere."""
    for item in made.scope.maps.maps.values():
        item.clear()
    with bench.trusting([TrustedResolver(ip_address(RESOLVER))]):
        yield made


# A step for each label of the question's name and its end, and for each record; one more finds the end.
MOST = abi.ANSWER_STEPS * abi.ANSWER_PROGRAMS - 1 - len(m.NAME.split(".")) - 1


@pytest.mark.parametrize(
    ("name", "count", "read", "counted"),
    [
        pytest.param(m.NAME, 254, 254, Reason.DNS_LEARNED, id="254 records"),
        pytest.param("eight.test", 254, 254, Reason.DNS_LEARNED, id="254 records for eight ports"),
        pytest.param(m.NAME, MOST, MOST, Reason.DNS_LEARNED, id="as many as are read"),
        pytest.param(m.NAME, MOST + 1, MOST + 1, Reason.DNS_TOO_MANY, id="one more"),
        pytest.param(m.NAME, MOST + 2, MOST + 1, Reason.DNS_TOO_MANY, id="two more"),
        pytest.param(m.NAME, 4000, MOST + 1, Reason.DNS_TOO_MANY, id="4000 records"),
    ],
)
def test_long_reply(wire: Wire, name: str, count: int, read: int, counted: Reason) -> None:
    wire.ask(ask(name).payload)
    wire.bench.counted()
    wire.tell(tell(*map(address, many(count)), name=name).payload)
    assert wire.bench.counted() == {counted: 1}
    assert wire.addresses() == set(many(read))
    assert {rule for _, rule in wire.bench.learned(wire.scope).values()} == {wire.bench.rule_of(name)}


def test_event_of_a_long_reply(wire: Wire) -> None:
    source = EventSource(wire.bench.plane)
    events: list[Event] = []
    reply = tell(*map(address, many(254))).payload
    assert len(reply) == 4095
    try:
        wire.ask(ask().payload)
        wire.tell(reply)
        source.drain(events.append)
    finally:
        source.close()
    (event,) = events
    assert event.dns_message == reply


@pytest.mark.parametrize(
    ("kind", "port", "reason"),
    [
        pytest.param(socket.SOCK_STREAM, 853, Reason.DENIED_DNS_OVER_TLS, id="DNS over TLS"),
        pytest.param(socket.SOCK_DGRAM, 853, Reason.DENIED_DNS_OVER_QUIC, id="DNS over QUIC"),
        pytest.param(socket.SOCK_STREAM, 443, Reason.DENIED_DNS_OVER_HTTPS, id="DNS over HTTPS"),
        pytest.param(socket.SOCK_DGRAM, 443, Reason.DENIED_DNS_OVER_HTTPS, id="DNS over HTTP/3"),
        pytest.param(socket.SOCK_STREAM, 53, Reason.DENIED_RESOLVER, id="DNS over TCP"),
        pytest.param(socket.SOCK_DGRAM, 53, Reason.DENIED_RESOLVER, id="DNS"),
        pytest.param(socket.SOCK_STREAM, 80, Reason.DENIED_UNKNOWN_ADDRESS, id="anything else"),
    ],
)
@pytest.mark.parametrize("connecting", [True, False], ids=["connect", "sendto"])
def test_refusal(wire: Wire, kind: int, port: int, reason: Reason, connecting: bool) -> None:
    """At the system call, with the same reason as on egress."""
    there = ("127.0.0.99", port)
    wire.bench.plane.know_encrypted_resolvers([ip_address(there[0])])
    source = EventSource(wire.bench.plane)
    events: list[Event] = []
    try:
        with inside(wire.cgroup):
            item = socket.socket(socket.AF_INET, kind)
        by_connect = connecting or kind == socket.SOCK_STREAM
        with item, pytest.raises(PermissionError) as caught:
            item.connect(there) if by_connect else item.sendto(b"x", there)
        source.drain(events.append)
    finally:
        source.close()
    assert caught.value.errno == errno.EPERM
    (event,) = events
    assert event.reason is reason
    assert event.hook in (Hook.INET4_CONNECT, Hook.UDP4_SENDMSG)
    assert event.scope == wire.scope.number


def padded(name: str) -> bytes:
    """A query with EDNS padding (RFC 7830), so that queries for different names are as long."""
    size = 128 - len(message(question(name))) - 15
    option = b"\0\x0c" + size.to_bytes(2, "big") + bytes(size)
    return message(question(name), additional=[m.record(m.OPT, option, owner=b"\0", ttl=0, rclass=1232)])


@pytest.mark.parametrize("names", [(m.NAME, "c2VjcmV0.evil.example"), (m.NAME, m.NAME)])
def test_datagrams_of_one_call_that_nobody_could_look_into(wire: Wire, names: tuple[str, str]) -> None:
    """With UDP_SEGMENT (udp(7)) one packet passes here that becomes several on the wire."""
    first, second = map(padded, names)
    assert len(first) == len(second)
    with wire.bench.configured(Settings(allowed_names_only=True)):
        with inside(wire.cgroup):
            item = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with item:
            place = wire.resolver.getsockname()
            item.sendto(first, place)
            assert wire.resolver.recv(65535) == first
            item.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, len(first))
            wire.bench.counted()
            with pytest.raises(PermissionError):
                item.sendto(first + second, place)
            assert wire.bench.counted() == {Reason.DENIED_NOT_A_QUERY: 1, Reason.DNS_NOT_A_QUERY: 1}
            # One that fills a segment is one datagram all the same.
            item.sendto(first, place)
            assert wire.resolver.recv(65535) == first


def test_datagram_that_is_learned(wire: Wire) -> None:
    wire.ask(ask().payload)
    wire.tell(tell(address(ONE)).payload)
    assert wire.addresses() == {ONE}

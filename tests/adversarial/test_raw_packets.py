"""Attacks with packets made by hand, which pass no connect() and no sendmsg() hook."""

from __future__ import annotations

import functools
import socket
import struct
from collections.abc import Callable

import pytest

from tests.adversarial import packets
from tests.adversarial.actor import Actor
from tests.adversarial.field import PORT, Field, Target
from tests.adversarial.packets import ACK, MORE_FRAGMENTS, PSH, SYN, ipv4, ipv6, tcp, udp
from tests.lab import topology

UNKNOWN = "denied-unknown-address"
FRAGMENT = "denied-fragment"
SOURCE_ROUTE = "denied-source-route"
PROTOCOL = "denied-protocol"
MALFORMED = "denied-malformed"

_HOP_BY_HOP, _ROUTING, _FRAGMENT_HEADER, _DESTINATION = 0, 43, 44, 60
_TCP, _UDP = 6, 17

Packet = Callable[[Target], bytes]

CLIENT, CLIENT_V6 = topology.CLIENT, topology.CLIENT_V6


def _tcp4(target: Target, flags: int, payload: bytes = b"") -> bytes:
    return tcp(CLIENT, target.v4, PORT, flags, payload)


def _tcp6(target: Target, flags: int, payload: bytes = b"") -> bytes:
    return tcp(CLIENT_V6, target.v6, PORT, flags, payload)


def syn(target: Target) -> bytes:
    """The packet that opens a connection, without the kernel's connect()."""
    return ipv4(CLIENT, target.v4, _TCP, _tcp4(target, SYN))


def syn_from_elsewhere(target: Target) -> bytes:
    """The same in somebody else's name."""
    return ipv4(topology.RESOLVER, target.v4, _TCP, tcp(topology.RESOLVER, target.v4, PORT, SYN))


def data(target: Target) -> bytes:
    """Data without a beginning: only what opens a connection is looked at."""
    return ipv4(CLIENT, target.v4, _TCP, _tcp4(target, ACK | PSH, b"GET / HTTP/1.1\r\n\r\n"))


def syn_ack(target: Target) -> bytes:
    """The answer to a connection that the other side never opened: inbound ones are allowed."""
    return ipv4(CLIENT, target.v4, _TCP, _tcp4(target, SYN | ACK))


def datagram(target: Target) -> bytes:
    """UDP without sendmsg() to an ordinary socket."""
    return ipv4(CLIENT, target.v4, _UDP, udp(CLIENT, target.v4, PORT, b"x"))


def datagram_from_dns_port(target: Target) -> bytes:
    """UDP from port 53, as a resolver's replies are."""
    return ipv4(CLIENT, target.v4, _UDP, udp(CLIENT, target.v4, PORT, b"x", source_port=53))


def first_fragment(target: Target) -> bytes:
    """A packet that claims to be only the first of several."""
    return ipv4(CLIENT, target.v4, _TCP, _tcp4(target, SYN), fragment=MORE_FRAGMENTS)


def tiny_fragment(target: Target) -> bytes:
    """A first fragment that ends before the flags (RFC 1858): without them it opens nothing."""
    return ipv4(CLIENT, target.v4, _TCP, _tcp4(target, SYN)[:8], fragment=MORE_FRAGMENTS)


def later_fragment(target: Target) -> bytes:
    """A fragment without ports, which the receiver joins to another one."""
    return ipv4(CLIENT, target.v4, _TCP, _tcp4(target, SYN)[8:], fragment=1)


def overlapping_fragment(target: Target) -> bytes:
    """A fragment at offset 8 that is to rewrite the ports of the first one (RFC 3128)."""
    return ipv4(CLIENT, target.v4, _UDP, bytes(24), fragment=MORE_FRAGMENTS | 1)


def source_routed(target: Target) -> bytes:
    """The destination is an allowed address, and a loose source route names the next."""
    segment = tcp(CLIENT, topology.ALLOWED, PORT, SYN)
    return ipv4(CLIENT, topology.ALLOWED, _TCP, segment, options=packets.source_route(target.v4))


def hidden_by_options(target: Target) -> bytes:
    """Forty bytes of no-operation options, to have the ports read from the wrong place."""
    return ipv4(CLIENT, target.v4, _TCP, _tcp4(target, SYN), options=b"\1" * 40)


def in_ip(target: Target) -> bytes:
    """A packet in a packet (IPIP)."""
    return ipv4(CLIENT, target.v4, 4, syn(target))


def sctp(target: Target) -> bytes:
    """Another transport protocol, made by hand."""
    return ipv4(CLIENT, target.v4, 132, bytes(32))


def syn_v6(target: Target) -> bytes:
    """The packet that opens a connection, over IPv6."""
    return ipv6(CLIENT_V6, target.v6, _TCP, _tcp6(target, SYN))


def data_v6(target: Target) -> bytes:
    """Data without a beginning, over IPv6."""
    return ipv6(CLIENT_V6, target.v6, _TCP, _tcp6(target, ACK | PSH, b"GET"))


def behind_options_v6(target: Target) -> bytes:
    """Destination options in front of TCP: whoever looks only at the first header sees no TCP."""
    return ipv6(CLIENT_V6, target.v6, _DESTINATION, bytes([_TCP, 0, 1, 4, 0, 0, 0, 0]) + _tcp6(target, SYN))


def behind_many_headers_v6(target: Target) -> bytes:
    """More extension headers than anybody reads."""
    chain = bytes([_DESTINATION, 0, 1, 4, 0, 0, 0, 0]) * 9 + bytes([_TCP, 0, 1, 4, 0, 0, 0, 0])
    return ipv6(CLIENT_V6, target.v6, _DESTINATION, chain + _tcp6(target, SYN))


def fragment_v6(target: Target) -> bytes:
    """A later fragment over IPv6."""
    header = struct.pack("!BBHI", _TCP, 0, 1 << 3, 99)
    return ipv6(CLIENT_V6, target.v6, _FRAGMENT_HEADER, header + _tcp6(target, SYN)[8:])


def atomic_fragment_v6(target: Target) -> bytes:
    """A fragment header on a whole packet (RFC 6946)."""
    header = struct.pack("!BBHI", _TCP, 0, 0, 99)
    return ipv6(CLIENT_V6, target.v6, _FRAGMENT_HEADER, header + _tcp6(target, SYN))


def routed_v6(target: Target) -> bytes:
    """A routing header by way of an allowed address."""
    routing = struct.pack("!BBBBI", _TCP, 2, 0, 1, 0) + socket.inet_pton(socket.AF_INET6, target.v6)
    segment = tcp(CLIENT_V6, target.v6, PORT, SYN)
    return ipv6(CLIENT_V6, topology.ALLOWED_V6, _ROUTING, routing + segment)


def sctp_v6(target: Target) -> bytes:
    """Another transport protocol over IPv6, made by hand."""
    return ipv6(CLIENT_V6, target.v6, 132, bytes(32))


def send(make: Packet, actor: Actor, target: Target) -> None:
    """Sends the packet as it is; the kernel only reads where to."""
    packet = make(target)
    if packet[0] >> 4 == 4:
        destination: tuple[str, int] = (socket.inet_ntoa(packet[16:20]), 0)
        family = socket.AF_INET
    else:
        destination = (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0)
        family = socket.AF_INET6
    actor.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW).sendto(packet, destination)


core = pytest.mark.core


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(syn, UNKNOWN, id="SYN", marks=core),
        pytest.param(syn_from_elsewhere, UNKNOWN, id="SYN in another's name"),
        pytest.param(data, UNKNOWN, id="data without a connection", marks=core),
        pytest.param(syn_ack, UNKNOWN, id="SYN and ACK"),
        pytest.param(datagram, UNKNOWN, id="datagram"),
        pytest.param(datagram_from_dns_port, UNKNOWN, id="datagram from port 53"),
        pytest.param(first_fragment, UNKNOWN, id="first fragment"),
        pytest.param(tiny_fragment, MALFORMED, id="tiny first fragment"),
        pytest.param(later_fragment, FRAGMENT, id="later fragment", marks=core),
        pytest.param(overlapping_fragment, FRAGMENT, id="overlapping fragment"),
        pytest.param(source_routed, SOURCE_ROUTE, id="source route", marks=core),
        pytest.param(hidden_by_options, SOURCE_ROUTE, id="many IP options"),
        pytest.param(in_ip, PROTOCOL, id="packet in a packet"),
        pytest.param(sctp, PROTOCOL, id="SCTP"),
        pytest.param(syn_v6, UNKNOWN, id="IPv6 SYN", marks=core),
        pytest.param(data_v6, UNKNOWN, id="IPv6 data without a connection"),
        pytest.param(behind_options_v6, UNKNOWN, id="IPv6 behind options"),
        pytest.param(behind_many_headers_v6, MALFORMED, id="IPv6 behind many headers"),
        pytest.param(fragment_v6, FRAGMENT, id="IPv6 later fragment"),
        pytest.param(atomic_fragment_v6, UNKNOWN, id="IPv6 atomic fragment"),
        pytest.param(routed_v6, SOURCE_ROUTE, id="IPv6 routing header"),
        pytest.param(sctp_v6, PROTOCOL, id="IPv6 SCTP"),
    ],
)
def test_packet(field: Field, make: Packet, reason: str) -> None:
    told = None
    if reason == SOURCE_ROUTE and make in (source_routed, routed_v6):
        told = topology.ALLOWED if make is source_routed else topology.ALLOWED_V6
    field.repels(functools.partial(send, make), reason, told=told)


def test_raw_socket_that_was_allowed(field: Field) -> None:
    """A raw socket is remembered for the allowed address that it sent to, and then sends elsewhere."""

    def attack(actor: Actor, target: Target) -> None:
        item = actor.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        segment = tcp(CLIENT, topology.ALLOWED, PORT, ACK)
        item.sendto(ipv4(CLIENT, topology.ALLOWED, _TCP, segment), (topology.ALLOWED, 0))
        item.sendto(data(target), (target.v4, 0))

    field.repels(attack, UNKNOWN)


def test_lying_destination(field: Field) -> None:
    """sendto() names an allowed address, and the packet's own header another one."""

    def attack(actor: Actor, target: Target) -> None:
        item = actor.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        item.sendto(data(target), (topology.ALLOWED, 0))

    field.repels(attack, UNKNOWN)

"""Attacks with ordinary sockets: addresses instead of names, and every other way to name a destination."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import PORT, Attack, Field, Target, attempt, tcp_connect
from tests.adversarial.packets import labels_of, query, source_route, wire_name
from tests.lab import topology

UNKNOWN = "denied-unknown-address"
SOURCE_ROUTE = "denied-source-route"
RESOLVER = "denied-resolver"

_ALLOWED = (topology.ALLOWED, PORT)
_ALLOWED_V6 = (topology.ALLOWED_V6, PORT)

_AF_INET, _AF_INET6 = socket.AF_INET, socket.AF_INET6
_STREAM, _DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM

# What the socket module lacks.
_IP_OPTIONS = 4
_IP_TRANSPARENT = 19
_MSG_FASTOPEN = 0x20000000
_MSG_MORE = 0x8000
_TCP_FASTOPEN_CONNECT = 30
_UDP_SEGMENT = 103
_IPPROTO_MPTCP = 262
_IPPROTO_SCTP = 132
_IPPROTO_UDP_LITE = 136

# Here UDP to what is allowed by a name would be refused itself, so it is allowed by its address.
POLICY = f"""\
version: 1
registries:
  - host: allowed.registry.test
    private: true
  - address: {topology.ALLOWED}
  - address: {topology.ALLOWED_V6}
resolvers: [{topology.RESOLVER}]
"""

SECOND_ADDRESS = "10.77.0.11"
SECOND_ADDRESS_V6 = "fd77::11"


@pytest.fixture(scope="module")
def policy() -> str:
    """In the place of that of conftest.py. test_sockets_answered.py is about refusals that are answered."""
    return f"{POLICY}refusals: {{ responder: off }}\n"


def direct_v4(actor: Actor, target: Target) -> None:
    """Only names are checked, so an address needs no permission."""
    tcp_connect(actor, target.v4)


def direct_v6(actor: Actor, target: Target) -> None:
    """IPv6 was forgotten: a registry that has only an IPv6 address is out of reach of the rules."""
    tcp_connect(actor, target.v6)


def mapped_tcp(actor: Actor, target: Target) -> None:
    """::ffff:a.b.c.d is an IPv6 address to the rules and an IPv4 address to the network."""
    tcp_connect(actor, target.mapped)


def mapped_udp(actor: Actor, target: Target) -> None:
    """The same with a datagram, whose address passes another hook."""
    actor.socket(_AF_INET6, _DGRAM).sendto(b"x", (target.mapped, PORT))


def other_port(actor: Actor, target: Target) -> None:
    """Only the usual ports of registries are watched."""
    tcp_connect(actor, target.v4, 5000)


def quic_v4(actor: Actor, target: Target) -> None:
    """UDP 443 carries HTTP/3, and only TCP is watched."""
    actor.socket(_AF_INET, _DGRAM).sendto(b"\xc0" + bytes(1199), (target.v4, PORT))


def quic_v6(actor: Actor, target: Target) -> None:
    """The same over IPv6."""
    actor.socket(_AF_INET6, _DGRAM).sendto(b"\xc0" + bytes(1199), (target.v6, PORT))


def connected_udp(actor: Actor, target: Target) -> None:
    """send() on a connected UDP socket passes no sendmsg hook."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.connect((target.v4, PORT))
    item.send(b"x")


def discard_port(actor: Actor, target: Target) -> None:
    """Stub resolvers may connect a UDP socket to port 9 without asking; perhaps they may also send."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.connect((target.v4, 9))
    item.send(b"x")


def discard_port_v6(actor: Actor, target: Target) -> None:
    """The same over IPv6."""
    item = actor.socket(_AF_INET6, _DGRAM)
    item.connect((target.v6, 9))
    item.send(b"x")


def fast_open(actor: Actor, target: Target) -> None:
    """sendto() with MSG_FASTOPEN opens a connection without connect()."""
    actor.socket(_AF_INET, _STREAM).sendto(b"GET", (target.v4, PORT), _MSG_FASTOPEN)


def fast_open_v6(actor: Actor, target: Target) -> None:
    """The same over IPv6."""
    actor.socket(_AF_INET6, _STREAM).sendto(b"GET", (target.v6, PORT), _MSG_FASTOPEN)


def deferred_fast_open(actor: Actor, target: Target) -> None:
    """TCP_FASTOPEN_CONNECT puts the work of connect() off until the first data."""
    item = actor.socket(_AF_INET, _STREAM)
    item.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
    item.connect((target.v4, PORT))
    item.send(b"GET")


def bound_to_device(actor: Actor, target: Target) -> None:
    """A socket bound to a network device goes around routing, and perhaps around more."""
    item = actor.socket(_AF_INET, _STREAM)
    item.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    item.connect((target.v4, PORT))


def second_source(actor: Actor, target: Target) -> None:
    """Traffic is recognised by the host's first address, and this comes from its second."""
    item = actor.socket(_AF_INET, _STREAM)
    item.bind((SECOND_ADDRESS, 0))
    item.connect((target.v4, PORT))


def foreign_source(actor: Actor, target: Target) -> None:
    """A datagram in somebody else's name is not of this scope."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    item.bind((topology.RESOLVER, 0))
    item.sendto(b"x", (target.v4, PORT))


def reconnected_tcp(actor: Actor, target: Target) -> None:
    """A socket that was allowed to reach one address stays allowed when it is led to another one."""
    item = actor.socket(_AF_INET, _STREAM)
    item.connect(_ALLOWED)
    item.disconnect()
    item.connect((target.v4, PORT))


def reconnected_tcp_v6(actor: Actor, target: Target) -> None:
    """The same over IPv6."""
    item = actor.socket(_AF_INET6, _STREAM)
    item.connect(_ALLOWED_V6)
    item.disconnect()
    item.connect((target.v6, PORT))


def reconnected_udp(actor: Actor, target: Target) -> None:
    """The same with UDP, where the first peer has even been sent to."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.connect(_ALLOWED)
    item.send(b"x")
    item.disconnect()
    item.connect((target.v4, PORT))
    item.send(b"x")


def redirected_udp(actor: Actor, target: Target) -> None:
    """connect() again without a disconnect in between; UDP takes a new peer at any time."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.connect(_ALLOWED)
    item.send(b"x")
    item.connect((target.v4, PORT))
    item.send(b"x")


def aside_from_connected_udp(actor: Actor, target: Target) -> None:
    """sendmsg() with an address on a socket that is connected to an allowed one."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.connect(_ALLOWED)
    item.send(b"x")
    item.sendto(b"x", (target.v4, PORT))


def aside_from_connected_udp_v6(actor: Actor, target: Target) -> None:
    """The same over IPv6."""
    item = actor.socket(_AF_INET6, _DGRAM)
    item.connect(_ALLOWED_V6)
    item.send(b"x")
    item.sendto(b"x", (target.v6, PORT))


def corked_udp(actor: Actor, target: Target) -> None:
    """A datagram in several pieces: only the first names the destination."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.sendto(b"x", (target.v4, PORT), _MSG_MORE)
    item.sendto(b"x", (target.v4, PORT))


def segmented_udp(actor: Actor, target: Target) -> None:
    """One send that the kernel cuts into many datagrams (UDP_SEGMENT)."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 100)
    item.sendto(bytes(1000), (target.v4, PORT))


def large_udp(actor: Actor, target: Target) -> None:
    """A datagram larger than the link leaves in fragments, of which only one has ports."""
    actor.socket(_AF_INET, _DGRAM).sendto(bytes(8000), (target.v4, PORT))


def multipath_tcp(actor: Actor, target: Target) -> None:
    """MPTCP is a protocol of its own to socket(), with TCP below it that the kernel opens itself."""
    actor.socket(_AF_INET, _STREAM, _IPPROTO_MPTCP).connect((target.v4, PORT))


def routed_by_allowed(actor: Actor, target: Target) -> None:
    """A loose source route: on the wire the destination is an allowed address, which is to pass it on."""
    item = actor.socket(_AF_INET, _STREAM)
    item.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, source_route(topology.ALLOWED))
    item.connect((target.v4, PORT))


def routed_to_allowed(actor: Actor, target: Target) -> None:
    """The reverse: connect() sees the allowed address, and the wire has the other one."""
    item = actor.socket(_AF_INET, _STREAM)
    item.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, source_route(target.v4))
    item.settimeout(0.3)
    item.connect(_ALLOWED)


def routed_datagram(actor: Actor, target: Target) -> None:
    """The same with UDP."""
    item = actor.socket(_AF_INET, _DGRAM)
    item.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, source_route(target.v4))
    item.sendto(b"x", _ALLOWED)


def raw_sctp(actor: Actor, target: Target) -> None:
    """Another transport protocol: the rules know TCP and UDP only."""
    actor.socket(_AF_INET, socket.SOCK_RAW, _IPPROTO_SCTP).sendto(bytes(32), (target.v4, 0))


def raw_sctp_v6(actor: Actor, target: Target) -> None:
    """The same over IPv6."""
    actor.socket(_AF_INET6, socket.SOCK_RAW, _IPPROTO_SCTP).sendto(bytes(32), (target.v6, 0))


def raw_udplite(actor: Actor, target: Target) -> None:
    """UDP-Lite has UDP's ports, but not its protocol number."""
    actor.socket(_AF_INET, socket.SOCK_RAW, _IPPROTO_UDP_LITE).sendto(bytes(32), (target.v4, 0))


def raw_tunnel(actor: Actor, target: Target) -> None:
    """GRE takes any packet elsewhere."""
    actor.socket(_AF_INET, socket.SOCK_RAW, socket.IPPROTO_GRE).sendto(bytes(32), (target.v4, 0))


core = pytest.mark.core


ATTACKS = [
    pytest.param(direct_v4, UNKNOWN, id="direct IPv4 address", marks=core),
    pytest.param(direct_v6, UNKNOWN, id="host with IPv6 only", marks=core),
    pytest.param(mapped_tcp, UNKNOWN, id="IPv4-mapped address, TCP", marks=core),
    pytest.param(mapped_udp, UNKNOWN, id="IPv4-mapped address, UDP"),
    pytest.param(other_port, UNKNOWN, id="another port"),
    pytest.param(quic_v4, UNKNOWN, id="UDP 443", marks=core),
    pytest.param(quic_v6, UNKNOWN, id="UDP 443 over IPv6"),
    pytest.param(connected_udp, UNKNOWN, id="connected UDP"),
    pytest.param(discard_port, UNKNOWN, id="UDP connected to the discard port", marks=core),
    pytest.param(discard_port_v6, UNKNOWN, id="UDP connected to the discard port over IPv6"),
    pytest.param(fast_open, UNKNOWN, id="TCP fast open", marks=core),
    pytest.param(fast_open_v6, UNKNOWN, id="TCP fast open over IPv6"),
    pytest.param(deferred_fast_open, UNKNOWN, id="deferred TCP fast open"),
    pytest.param(bound_to_device, UNKNOWN, id="bound to the device"),
    pytest.param(second_source, UNKNOWN, id="from the second address"),
    pytest.param(foreign_source, UNKNOWN, id="from a foreign address"),
    pytest.param(reconnected_tcp, UNKNOWN, id="reconnected TCP socket", marks=core),
    pytest.param(reconnected_tcp_v6, UNKNOWN, id="reconnected TCP socket over IPv6"),
    pytest.param(reconnected_udp, UNKNOWN, id="reconnected UDP socket"),
    pytest.param(redirected_udp, UNKNOWN, id="redirected UDP socket"),
    pytest.param(aside_from_connected_udp, UNKNOWN, id="aside from a connected UDP socket", marks=core),
    pytest.param(aside_from_connected_udp_v6, UNKNOWN, id="aside from a connected UDP socket over IPv6"),
    pytest.param(corked_udp, UNKNOWN, id="corked UDP"),
    pytest.param(segmented_udp, UNKNOWN, id="segmented UDP"),
    pytest.param(large_udp, UNKNOWN, id="datagram in fragments"),
    pytest.param(routed_by_allowed, UNKNOWN, id="source route by way of an allowed address"),
    pytest.param(routed_datagram, SOURCE_ROUTE, id="datagram with a source route"),
    pytest.param(raw_sctp, "denied-protocol", id="SCTP", marks=core),
    pytest.param(raw_sctp_v6, "denied-protocol", id="SCTP over IPv6"),
    pytest.param(raw_udplite, "denied-protocol", id="UDP-Lite"),
    pytest.param(raw_tunnel, "denied-protocol", id="GRE"),
]


@pytest.mark.parametrize(("attack", "reason"), ATTACKS)
def test_socket(field: Field, second_address: None, attack: Attack, reason: str) -> None:
    field.repels(attack, reason)


@pytest.mark.core
def test_source_route_to_allowed(field: Field) -> None:
    """See routed_to_allowed. TCP keeps it to itself that its packets are dropped; the daemon ends it,
    where the kernel can (CONFIG_INET_DIAG_DESTROY)."""
    ends = (errno.ECONNABORTED, errno.ETIMEDOUT)
    line = field.repels(routed_to_allowed, SOURCE_ROUTE, error=ends)
    assert line["protocol"] == "tcp"


@pytest.fixture(scope="module")
def second_address(field: Field) -> None:
    field.lab.client.add_addresses(SECOND_ADDRESS, SECOND_ADDRESS_V6)


def test_multipath_tcp(field: Field) -> None:
    """See multipath_tcp."""
    if not Path("/proc/sys/net/mptcp/enabled").exists():
        pytest.skip("this kernel has no MPTCP")
    field.repels(multipath_tcp, UNKNOWN)


@pytest.mark.parametrize(
    "host",
    [pytest.param("v4", id="IPv4", marks=core), pytest.param("v6", id="IPv6")],
)
def test_hosts_file(field: Field, host: str) -> None:
    """The name is allowed, so whatever address /etc/hosts gives for it is allowed too."""
    target = field.target()
    address = getattr(target, host)
    start = len(field.daemon.lines())
    hosts = {"allowed.registry.test": address}
    with Actor(field.lab.client, field.lab.client_cgroup, hosts=hosts) as actor:
        found = [text for text in actor.resolve("allowed.registry.test") if (":" in text) == (host == "v6")]
        assert found == [address]
        failure = attempt(actor, lambda actor, _: tcp_connect(actor, address), target)
    assert failure is not None
    assert failure.errno == errno.EPERM
    field.reason(start, (UNKNOWN,), target)
    assert not field.arrived(target)


@pytest.mark.parametrize(
    ("address", "told"),
    [pytest.param("0.0.0.0", "127.0.0.1", id="IPv4"), pytest.param("::", "::1", id="IPv6")],
)
def test_any_address(field: Field, address: str, told: str) -> None:
    """0.0.0.0 is nobody's address to the rules, and this very host to connect()."""
    family = _AF_INET6 if ":" in address else _AF_INET
    server = field.outside.socket(family, _STREAM)
    server.bind((told, 0))
    server.listen()
    port = server.port()
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        tcp_connect(field.inside, address, port)
    field.reason(start, (UNKNOWN,), told)
    tcp_connect(field.outside, address, port)
    server.accept()
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):  # that was all who came
        server.accept()
    field.outside.reset()


@pytest.fixture
def below(field: Field) -> Iterator[Path]:
    path = field.lab.client_cgroup / "below" / "deeper"
    path.mkdir(parents=True)
    yield path
    path.rmdir()
    path.parent.rmdir()


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(direct_v4, id="TCP", marks=core),
        pytest.param(quic_v6, id="UDP"),
        pytest.param(raw_sctp, id="raw"),
    ],
)
def test_child_cgroup(field: Field, below: Path, attack: Attack) -> None:
    """A process that moves into a control group of its own, below the scope, has left the scope."""
    with Actor(field.lab.client, field.lab.client_cgroup) as actor:
        actor.call("move", str(below))
        line = field.repels(attack, UNKNOWN, "denied-protocol", actor=actor)
    if "cgroup" in line:
        assert line["cgroup"].endswith("/below/deeper")


@pytest.mark.parametrize(
    "address",
    [pytest.param("127.0.0.2", id="loopback", marks=core), pytest.param(topology.CLIENT, id="own address")],
)
def test_own_resolver(field: Field, address: str) -> None:
    """A resolver of the attacker's own in the scope, whose answers say what the attacker likes."""
    server = field.inside.socket(_AF_INET, _DGRAM)
    server.bind((address, 53))
    start = len(field.daemon.lines())
    client = field.inside.socket(_AF_INET, _DGRAM)
    wire = query(wire_name(*labels_of("allowed.registry.test")))
    with pytest.raises(PermissionError):
        client.sendto(wire, (address, 53))
    field.reason(start, (RESOLVER,), address)
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.recv()
    field.inside.reset()
    # Where nothing stops it, it works.
    server = field.outside.socket(_AF_INET, _DGRAM)
    server.bind((address, 53))
    field.outside.socket(_AF_INET, _DGRAM).sendto(wire, (address, 53))
    assert server.recv() == wire
    field.outside.reset()


@pytest.mark.parametrize(
    ("address", "port", "kind", "reason"),
    [
        pytest.param(topology.ROGUE_RESOLVER, 53, _DGRAM, RESOLVER, id="UDP", marks=core),
        pytest.param(topology.ROGUE_RESOLVER_V6, 53, _DGRAM, RESOLVER, id="UDP over IPv6"),
        pytest.param(topology.ROGUE_RESOLVER, 53, _STREAM, RESOLVER, id="TCP"),
        pytest.param(topology.ROGUE_RESOLVER, 853, _STREAM, "denied-dns-over-tls", id="DNS over TLS"),
        pytest.param(topology.ROGUE_RESOLVER, 853, _DGRAM, "denied-dns-over-quic", id="DNS over QUIC"),
    ],
)
def test_attackers_resolver(field: Field, address: str, port: int, kind: int, reason: str) -> None:
    """A resolver of the attacker's own, elsewhere, answers for the allowed name."""
    family = _AF_INET6 if ":" in address else _AF_INET
    start = len(field.daemon.lines())
    wire = query(wire_name(*labels_of("allowed.registry.test")))
    with Actor(field.lab.dns.node) as resolver:
        server = resolver.socket(family, kind)
        # Or others who are to have the port after this would have to wait.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        if kind == _STREAM:
            server.listen()
        client = field.inside.socket(family, kind)
        with pytest.raises(PermissionError):
            client.connect((address, port))
        if kind == _DGRAM:
            with pytest.raises(PermissionError):
                client.sendto(wire, (address, port))
        field.reason(start, (reason,), address)
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.recv() if kind == _DGRAM else server.accept()
        control = field.outside.socket(family, kind)
        control.connect((address, port))
        control.send(wire)
        assert (server.recv() if kind == _DGRAM else server.accept().recv()) == wire
    field.inside.reset()
    field.outside.reset()

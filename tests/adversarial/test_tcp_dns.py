"""Attacks on DNS over TCP: segments that anybody may have sent, and streams with two meanings."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial import lies
from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import Field, governed, tcp_connect
from tests.adversarial.lookups import assert_opens, assert_shut, assert_stays_shut, is_open, name_of, serve
from tests.adversarial.packets import ACK, PSH, RST, address_for, framed, ipv4, query, reply, tcp, wire_name
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.rogue import RogueDns

RESOLVER = topology.ROGUE_RESOLVER
CONNECTIONS = 2000
PATIENCE = 10.0  # seconds that a client waits for its reply
AT_ONCE = 100  # connections that wait to be accepted

_AF_INET, _STREAM = socket.AF_INET, socket.SOCK_STREAM
_AF_PACKET = 17
_ETH_P_ALL = 3  # others see no packets of their own
_ETHERNET_HEADER = 14
_TCP = socket.IPPROTO_TCP

core = pytest.mark.core


@pytest.fixture(scope="module")
def policy() -> str:
    """A wildcard, as its names are not looked up before."""
    return f"""\
version: 1
registries:
  - host: "*.lies.test"
refusals:
  responder: off
resolvers: [{RESOLVER}]
"""


@pytest.fixture(scope="module")
def other_scope(lab: Lab) -> Path:
    """A second place under the same policy."""
    return lab.new_cgroup("other-tcp")


@pytest.fixture(scope="module")
def field(lab: Lab, policy: str, other_scope: Path) -> Iterator[Field]:
    """As in conftest.py, with a resolver that is honest over UDP, where the daemon asks, and two scopes."""
    with RogueDns(lab.dns.node, Path(lies.__file__)):
        with governed(lab, policy, "--log-dns", scopes=[lab.client_cgroup, other_scope]) as daemon:
            with Field(lab, daemon) as result:
                yield result


@pytest.fixture(scope="module")
def resolver(field: Field) -> Iterator[RemoteSocket]:
    """The same resolver over TCP: it answers when a test says so."""
    with Actor(field.lab.dns.node) as actor:
        item = actor.socket(_AF_INET, _STREAM)
        item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        item.bind((RESOLVER, 53))
        item.listen()
        yield item


class Connection:
    """A client's connection to the resolver, seen by somebody on the path."""

    def __init__(self, client: Actor, resolver: RemoteSocket, path: Actor) -> None:
        kind = int.from_bytes(_ETH_P_ALL.to_bytes(2, "big"), "little")
        self._tap = path.socket(_AF_PACKET, socket.SOCK_RAW, kind)
        self.client = client.socket(_AF_INET, _STREAM)
        self.client.connect((RESOLVER, 53))
        self.port = self.client.port()
        self.resolver = resolver.accept()
        self._next = [0, 0]  # sequence numbers: of the client, of the resolver
        self.look()

    def look(self) -> tuple[int, int]:
        """The next sequence numbers of the client and of the resolver."""
        for frame, _ in self._tap.drain():
            packet = frame[_ETHERNET_HEADER:]
            if frame[12:14] != b"\x08\x00" or packet[9] != _TCP or not self._is_ours(packet):
                continue
            start = (packet[0] & 15) * 4
            source_port, _, sequence, _, offset, flags = struct.unpack_from("!HHIIBB", packet, start)
            length = int.from_bytes(packet[2:4], "big") - start - (offset >> 4) * 4
            taken = length + bool(flags & 2) + bool(flags & 1)
            self._next[source_port == 53] = (sequence + taken) & 0xFFFFFFFF
        return self._next[0], self._next[1]

    def _is_ours(self, packet: bytes) -> bool:
        start = (packet[0] & 15) * 4
        return {self.port, 53} == set(struct.unpack_from("!HH", packet, start))

    def inject(self, attacker: Actor, flags: int, payload: bytes = b"", ahead: int = 0) -> None:
        """The attacker sends the client a segment in the resolver's name, `ahead` of what it expects."""
        client, server = self.look()
        segment = tcp(RESOLVER, topology.CLIENT, self.port, flags, payload, 53, server + ahead, client)
        packet = ipv4(RESOLVER, topology.CLIENT, _TCP, segment)
        raw = attacker.socket(_AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw.sendto(packet, (topology.CLIENT, 0))
        raw.close()


@pytest.fixture
def path(field: Field) -> Iterator[Actor]:
    """Whoever sees what client and resolver send each other."""
    with Actor(field.lab.dns.node) as result:
        yield result


@pytest.fixture
def attacker(field: Field) -> Iterator[Actor]:
    """Somebody else on the network."""
    with Actor(field.lab.blocked.node) as result:
        yield result


@pytest.fixture
def connection(field: Field, resolver: RemoteSocket, path: Actor) -> Iterator[Connection]:
    yield Connection(field.inside, resolver, path)
    field.inside.reset()


def honest(field: Field, text: str) -> tuple[bytes, str]:
    """A name and the address that the resolver gives for it, which is one of the attacker's registry."""
    name = name_of(text)
    address = address_for(name)
    serve(field, address)
    return name, address


def look_up(client: Actor, resolver: RemoteSocket, name: bytes) -> RemoteSocket:
    """An ordinary lookup over TCP."""
    item = client.socket(_AF_INET, _STREAM)
    item.connect((RESOLVER, 53))
    connection = resolver.accept()
    item.send(framed(query(name)))
    assert connection.recv() == framed(query(name))
    connection.send(framed(reply(name, address_for(name))))
    assert item.recv() == framed(reply(name, address_for(name)))
    connection.close()
    return item


@core
def test_honest_reply(field: Field, resolver: RemoteSocket) -> None:
    """No attack: when the client has the reply, the address is open."""
    name, address = honest(field, "honest-tcp.lies.test")
    assert_shut(field, address)
    look_up(field.inside, resolver, name)
    tcp_connect(field.inside, address)
    field.inside.reset()


def test_forged_segment_elsewhere_in_the_stream(
    field: Field, connection: Connection, attacker: Actor
) -> None:
    """A segment whose sequence number TCP does not take passes the programs all the same."""
    name, address = honest(field, "blind.lies.test")
    target = field.target()
    connection.client.send(framed(query(name)))
    assert connection.resolver.recv() == framed(query(name))
    for ahead in (100_000, -100_000):
        connection.inject(attacker, ACK | PSH, framed(reply(name, target.v4)), ahead)
    assert_opens(field, address)
    connection.resolver.send(framed(reply(name, address)))
    assert connection.client.recv() == framed(reply(name, address))
    assert_stays_shut(field, target.v4)


@core
def test_forged_segment(
    field: Field, connection: Connection, attacker: Actor, resolver: RemoteSocket, path: Actor
) -> None:
    """On the path, the attacker knows all of the connection, and answers in the resolver's place."""
    name, address = honest(field, "on-path.lies.test")
    target = field.target()
    connection.client.send(framed(query(name)))
    assert connection.resolver.recv() == framed(query(name))
    assert_opens(field, address)  # by now the daemon has asked
    connection.inject(attacker, ACK | PSH, framed(reply(name, target.v4)))
    assert connection.client.recv() == framed(reply(name, target.v4))
    assert_stays_shut(field, target.v4)
    # Outside the scope the same client gets to the attacker's registry.
    outside = Connection(field.outside, resolver, path)
    outside.client.send(framed(query(name)))
    assert outside.resolver.recv() == framed(query(name))
    outside.inject(attacker, ACK | PSH, framed(reply(name, target.v4)))
    assert outside.client.recv() == framed(reply(name, target.v4))
    tcp_connect(field.outside, target.v4)
    field.outside.reset()


def test_forged_segment_at_once(field: Field, connection: Connection, attacker: Actor) -> None:
    """The same while the reply is held: the forged one comes before the daemon has asked."""
    name, address = honest(field, "quick.lies.test")
    target = field.target()
    connection.client.send(framed(query(name)))
    connection.inject(attacker, ACK | PSH, framed(reply(name, target.v4)))
    assert_opens(field, address)
    assert_stays_shut(field, target.v4)


def test_forged_end(field: Field, connection: Connection, attacker: Actor, resolver: RemoteSocket) -> None:
    """A forged RST ends the connection, and with it perhaps all that was known of it."""
    name, address = honest(field, "reset.lies.test")
    target = field.target()
    connection.client.send(framed(query(name)))
    assert connection.resolver.recv() == framed(query(name))
    connection.inject(attacker, RST | ACK)
    with pytest.raises(ConnectionResetError):
        connection.client.recv()
    connection.inject(attacker, ACK | PSH, framed(reply(name, target.v4)))
    assert_stays_shut(field, target.v4)
    look_up(field.inside, resolver, name)
    tcp_connect(field.inside, address)


@core
def test_reply_without_query(field: Field, connection: Connection) -> None:
    """Over TCP a reply needs no id to be guessed, and perhaps no query either."""
    name, target = name_of("unasked-tcp.lies.test"), field.target()
    connection.resolver.send(framed(reply(name, target.v4)))
    assert connection.client.recv() == framed(reply(name, target.v4))
    assert_stays_shut(field, target.v4)


def test_reply_to_another_name(field: Field, connection: Connection) -> None:
    """The client asks for an allowed name, and the reply is about another one, or has its address too."""
    name, address = honest(field, "asked-tcp.lies.test")
    target = field.target()
    connection.client.send(framed(query(name)))
    assert connection.resolver.recv() == framed(query(name))
    forged = framed(reply(name_of("www.evil.test"), target.v4))
    connection.resolver.send(forged)
    assert connection.client.recv() == forged
    assert_opens(field, address)
    assert_stays_shut(field, target.v4)


@core
def test_two_meanings_of_one_segment(field: Field, connection: Connection) -> None:
    """The second segment is a whole query for an allowed name to whoever looks at it alone.

    In the stream it is the end of the first one's message, which asks for the attacker's name; and the
    trailing bytes of a message are nobody's business.
    """
    evil, target = honest(field, "two-meanings.evil.test")
    allowed = framed(query(name_of("pretext.lies.test")))
    asked = query(evil)
    connection.client.send(struct.pack("!H", len(asked) + len(allowed)) + asked)
    connection.resolver.recv()
    connection.client.send(allowed)
    assert connection.resolver.recv() == allowed
    assert_stays_shut(field, target)
    # To the resolver it is one query for the attacker's name, which it answers.
    tcp_connect(field.outside, target)
    field.outside.reset()


def test_query_in_the_middle_of_a_name(field: Field, connection: Connection) -> None:
    """The same with the second segment inside of the first one's name."""
    allowed = framed(query(name_of("pretext-2.lies.test")))
    inner = allowed[:60].ljust(60, b"-")
    evil = wire_name(inner, b"evil", b"test")
    address = address_for(evil)
    serve(field, address)
    message = framed(query(evil))
    cut = message.index(inner)
    tail = message[cut:]
    # Whole again by its own length.
    second = struct.pack("!H", len(tail) - 2) + tail[2:]
    evil = wire_name(second[:60], b"evil", b"test")
    address = address_for(evil)
    serve(field, address)
    connection.client.send(message[:cut])
    connection.resolver.recv()
    connection.client.send(second)
    connection.resolver.recv()
    assert_stays_shut(field, address)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param([b"a.lies", b"test"], id="a dot in the wildcard's suffix"),
        pytest.param([b"a\0", b"lies", b"test"], id="NUL"),
        pytest.param([b"a\x01b", b"lies", b"test"], id="0x01"),
        pytest.param([b"a\\.lies", b"test"], id="an escaped dot"),
        pytest.param([b"a.b", b"lies", b"test"], id="a dot in the wildcard's label"),
        pytest.param([b"x", b"y", b"lies", b"test"], id="two labels where one is allowed"),
    ],
)
def test_name(field: Field, connection: Connection, labels: list[bytes]) -> None:
    """A segment with two queries is left to the daemon, which reads names as text."""
    name = wire_name(*labels)
    address = address_for(name)
    serve(field, address)
    other, open_address = honest(field, f"beside-{len(name)}-{labels[0].hex()}.lies.test")
    connection.client.send(framed(query(name), query(other)))
    connection.resolver.recv()
    assert_opens(field, open_address)
    assert_stays_shut(field, address, 0.2)


def test_pieces(field: Field, connection: Connection) -> None:
    """No attack: a query that comes byte by byte."""
    name, address = honest(field, "pieces.lies.test")
    connection.client.setsockopt(_TCP, socket.TCP_NODELAY, 1)
    wire = framed(query(name))
    for position in range(len(wire)):
        connection.client.send(wire[position : position + 1])
    assert_opens(field, address)


def test_pipeline(field: Field, connection: Connection) -> None:
    """No attack: many queries in one segment."""
    names = [honest(field, f"line-{number}.lies.test") for number in range(8)]
    connection.client.send(framed(*(query(name) for name, _ in names)))
    for _, address in names:
        assert_opens(field, address)


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(b"\xff\xff" + bytes(20_000), id="a message that never ends"),
        pytest.param(b"\0\0" * 5000, id="messages without content"),
        pytest.param(b"\0\1x" * 5000, id="messages of one octet"),
        pytest.param(framed(query(b"\xc0\x0c")) * 50, id="names that point at themselves"),
        pytest.param(framed(query(wire_name(*[b"x"] * 127))[:-1]) * 50, id="long names cut off"),
        pytest.param(b"\xff" * 65_000, id="ones"),
    ],
)
def test_garbage(field: Field, connection: Connection, wire: bytes) -> None:
    """What the client sends is no DNS, and the daemon reads it."""
    connection.client.send(wire)
    connection.client.send(framed(query(name_of("behind-garbage.lies.test"))))
    assert "Traceback" not in field.daemon.said()


def test_afterwards(field: Field, resolver: RemoteSocket) -> None:
    """No attack: after all that the next lookup works as the first."""
    name, address = honest(field, "after-tcp.lies.test")
    look_up(field.inside, resolver, name)
    tcp_connect(field.inside, address)
    field.inside.reset()
    assert "Traceback" not in field.daemon.said()


def test_many_connections(field: Field, resolver: RemoteSocket, other_scope: Path) -> None:
    """One scope opens more connections, each with a query for an allowed name, than anybody keeps in mind."""
    wires = tuple(query(name_of(f"many-{number}.lies.test")) for number in range(CONNECTIONS))
    with Actor(field.lab.client, field.lab.client_cgroup) as flooding:
        with Actor(field.lab.client, other_scope) as calm:
            for start in range(0, CONNECTIONS, AT_ONCE):
                flooding.start("dial", RESOLVER, wires[start : start + AT_ONCE])
                for _ in range(AT_ONCE):
                    resolver.accept()
                assert flooding.finish() == AT_ONCE
            # A busy machine may have one of them wait for longer than replies are held.
            assert any(_is_learned(field, resolver, calm, f"calm-{number}.lies.test") for number in range(3))


def test_many_refusals(field: Field, resolver: RemoteSocket, other_scope: Path, tmp_path: Path) -> None:
    """One scope has so much refused that the daemon hears nothing of another one's lookup over TCP."""
    target, done = field.target(), tmp_path / "done"
    with Actor(field.lab.client, field.lab.client_cgroup) as flooding:
        with Actor(field.lab.client, other_scope) as calm:
            flooding.start("batter", target.v4, 443, str(done))
            try:
                opened = [
                    _is_learned(field, resolver, calm, f"beside-refusals-{number}.lies.test")
                    for number in range(5)
                ]
            finally:
                done.touch()
            assert flooding.finish() > 0
    assert opened == [True] * 5


def _is_learned(field: Field, resolver: RemoteSocket, actor: Actor, text: str) -> bool:
    name, address = honest(field, text)
    item = actor.socket(_AF_INET, _STREAM)
    item.settimeout(PATIENCE)
    item.connect((RESOLVER, 53))
    connection = resolver.accept()
    item.send(framed(query(name)))
    connection.recv()
    connection.send(framed(reply(name, address)))
    assert item.recv() == framed(reply(name, address))
    return is_open(actor, address)

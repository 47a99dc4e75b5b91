"""Attacks on what is learned: replies that should not be believed, names that only look allowed."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adversarial import lies
from tests.adversarial.field import PORT, Field, tcp_connect
from tests.adversarial.lookups import ask, assert_shut, dns_line, give
from tests.adversarial.packets import AAAA, A, labels_of, query, reply, wire_name
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.rogue import RogueDns

_DGRAM = socket.SOCK_DGRAM
_IP_TRANSPARENT = 19
_ROGUE = (topology.ROGUE_RESOLVER, 53)

LISTED = "allowed.registry.test"


@pytest.fixture(scope="module")
def policy() -> str:
    """Trusts the resolver whose replies are attacked. A wildcard, as its names are not looked up before."""
    return f"""\
version: 1
registries:
  - host: {LISTED}
    private: true
  - host: "*.lies.test"
refusals:
  responder: off
resolvers: [{Lab.resolver}, {Lab.rogue_resolver}, {lies.QUIET_RESOLVER}]
"""


@pytest.fixture(scope="module")
def rogue(field: Field) -> Iterator[RogueDns]:
    with RogueDns(field.lab.dns.node, Path(lies.__file__)) as result:
        yield result


@pytest.mark.parametrize(
    "kind", [pytest.param(A, id="A", marks=pytest.mark.core), pytest.param(AAAA, id="AAAA")]
)
def test_honest_reply(field: Field, rogue: RogueDns, kind: int) -> None:
    """No attack: what the others are held against. Without the reply the address is shut, with it open."""
    name = wire_name(*labels_of("honest.lies.test"))
    address = give(field, name, kind)
    assert_shut(field, address)
    ask(field, query(name, kind))
    tcp_connect(field.inside, address)
    field.inside.reset()


@pytest.mark.parametrize(
    "text",
    [pytest.param("LOUD.LIES.TEST", id="upper case"), pytest.param("mIxEd.lIeS.tEsT", id="mixed case")],
)
def test_letter_case(field: Field, rogue: RogueDns, text: str) -> None:
    """No attack either: resolvers mix the case of letters on purpose."""
    name = wire_name(*labels_of(text))
    address = give(field, name)
    ask(field, query(name))
    tcp_connect(field.inside, address)
    field.inside.reset()


core = pytest.mark.core


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        pytest.param("from-another-address", "dns-untrusted-sender", id="from another address", marks=core),
        pytest.param("wrong-id", "dns-no-query", id="with a wrong id", marks=core),
        pytest.param("wrong-name", "dns-wrong-question", id="about another name", marks=core),
        pytest.param("wrong-type", "dns-wrong-question", id="about another type"),
        pytest.param("from-another-resolver", "dns-no-query", id="from another trusted resolver"),
        pytest.param("two-questions", "dns-wrong-question", id="with two questions"),
        pytest.param("no-question", "dns-wrong-question", id="without a question"),
        pytest.param("not-a-response", "dns-malformed", id="that is marked as a query"),
        pytest.param("additional", "dns-no-address", id="with the address beside the answer"),
        pytest.param("name-error", "dns-no-address", id="that says the name does not exist"),
        pytest.param("chaos", "dns-no-address", id="with an address of another class"),
    ],
)
def test_reply(field: Field, rogue: RogueDns, case: str, reason: str) -> None:
    """Whoever can send a datagram to the client tells it where the allowed name is."""
    name = wire_name(*labels_of(f"{case}.lies.test"))
    address = give(field, name)
    start = len(field.daemon.lines())
    ask(field, query(name))
    dns_line(field, start, reason)
    assert_shut(field, address)
    field.inside.reset()


def test_reply_from_another_port(field: Field, rogue: RogueDns) -> None:
    """Any process on the resolver's host may answer; only port 53 is root's. Nothing tells of that one."""
    name = wire_name(*labels_of("from-another-port.lies.test"))
    address = give(field, name)
    ask(field, query(name))
    assert_shut(field, address)
    field.inside.reset()


@pytest.mark.core
def test_second_reply(field: Field, rogue: RogueDns) -> None:
    """The resolver's own reply comes first, and the attacker's is still welcome behind it."""
    name = wire_name(*labels_of("second-reply.lies.test"))
    address = give(field, name)
    start = len(field.daemon.lines())
    ask(field, query(name), replies=2)
    dns_line(field, start, "dns-learned")
    dns_line(field, start, "dns-no-query")
    assert_shut(field, address)
    field.inside.reset()


@pytest.mark.core
def test_reply_without_query(field: Field, rogue: RogueDns) -> None:
    """A reply that nobody asked for, in the trusted resolver's name."""
    name = wire_name(*labels_of("unasked.lies.test"))
    address = give(field, name)
    item = field.inside.socket(socket.AF_INET, _DGRAM)
    item.bind((topology.CLIENT, 0))
    start = len(field.daemon.lines())
    rogue.send(reply(name, address), topology.CLIENT, item.port())
    assert item.recv() == reply(name, address)
    dns_line(field, start, "dns-no-query")
    assert_shut(field, address)
    field.inside.reset()


def test_reply_to_another_port(field: Field, rogue: RogueDns) -> None:
    """One socket asks, and the reply to another one is believed."""
    name = wire_name(*labels_of("silent-1.lies.test"))
    address = give(field, name)
    ask(field, query(name), replies=0)
    item = field.inside.socket(socket.AF_INET, _DGRAM)
    item.bind((topology.CLIENT, 0))
    start = len(field.daemon.lines())
    rogue.send(reply(name, address), topology.CLIENT, item.port())
    dns_line(field, start, "dns-no-query")
    assert_shut(field, address)
    field.inside.reset()


@pytest.mark.core
def test_reply_from_this_host(field: Field, rogue: RogueDns) -> None:
    """A process outside the scope, on the same host, answers in the resolver's name over loopback."""
    name = wire_name(*labels_of("silent-2.lies.test"))
    address = give(field, name)
    asking = ask(field, query(name, identifier=99), replies=0, resolver=lies.QUIET_RESOLVER)
    item = field.outside.socket(socket.AF_INET, _DGRAM)
    item.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    item.bind((lies.QUIET_RESOLVER, 53))
    start = len(field.daemon.lines())
    item.sendto(reply(name, address, identifier=99), (topology.CLIENT, asking.port()))
    assert asking.recv()
    dns_line(field, start, "dns-wrong-interface")
    assert_shut(field, address)
    field.inside.reset()
    field.outside.reset()


def test_reply_to_oneself(field: Field, rogue: RogueDns) -> None:
    """A process in the scope answers its own query in the resolver's name."""
    name = wire_name(*labels_of("silent-3.lies.test"))
    asking = ask(field, query(name, identifier=98), replies=0, resolver=lies.QUIET_RESOLVER)
    item = field.inside.socket(socket.AF_INET, _DGRAM)
    item.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    item.bind((lies.QUIET_RESOLVER, 53))
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        item.sendto(reply(name, "192.0.2.1", identifier=98), (topology.CLIENT, asking.port()))
    field.reason(start, ("denied-unknown-address",), topology.CLIENT)
    field.inside.reset()


def test_query_overtaken(field: Field, rogue: RogueDns) -> None:
    """A query for a listed name lends its id and port to a later one for a name that is not."""
    listed = wire_name(*labels_of("silent-4.lies.test"))
    other = wire_name(*labels_of("borrower.evil.test"))
    address = give(field, other)
    start = len(field.daemon.lines())
    item = ask(field, query(listed, identifier=97), replies=0)
    item.sendto(query(other, identifier=97), _ROGUE)
    item.recv()
    dns_line(field, start, "dns-not-listed")
    assert_shut(field, address)
    field.inside.reset()


def test_query_overtaking(field: Field, rogue: RogueDns) -> None:
    """The other way round: the reply about the unlisted name comes while one for a listed name is awaited."""
    listed = wire_name(*labels_of("silent-5.lies.test"))
    name = wire_name(*labels_of("early.evil.test"))
    address = give(field, name)
    start = len(field.daemon.lines())
    item = ask(field, query(listed, identifier=96), replies=0, resolver=lies.QUIET_RESOLVER)
    rogue.send(reply(name, address, 96), topology.CLIENT, item.port(), source=lies.QUIET_RESOLVER)
    dns_line(field, start, "dns-wrong-question")
    assert_shut(field, address)
    field.inside.reset()


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(labels_of(f"{LISTED}.evil.test"), id="an allowed name as a prefix", marks=core),
        pytest.param(labels_of(f"evil{LISTED}"), id="an allowed name as a suffix within a label", marks=core),
        pytest.param(labels_of(f"not{LISTED}"), id="a label that ends like an allowed one"),
        pytest.param(labels_of(f"evil.{LISTED}"), id="a name below an exact one"),
        pytest.param(labels_of("a.b.lies.test"), id="two labels where one is allowed"),
        pytest.param(labels_of("lies.test"), id="the wildcard's own suffix"),
        pytest.param(labels_of("x.evillies.test"), id="a longer label in the wildcard's suffix"),
        pytest.param([b"allowed.registry", b"test"], id="a label with a dot", marks=core),
        pytest.param([b"allowed.registry.test"], id="a name of one label with dots"),
        pytest.param([b"evil", b"a.lies", b"test"], id="a dot in the wildcard's suffix"),
        pytest.param([b"a.b", b"lies", b"test"], id="a dot in the wildcard's label"),
        pytest.param([b"allowed\0", b"registry", b"test"], id="a label with NUL", marks=core),
        pytest.param([b"allowed", b"registry", b"test\0", b"evil", b"test"], id="NUL behind an allowed name"),
        pytest.param([b"a\0", b"lies", b"test"], id="NUL in the wildcard's label"),
        pytest.param([b"a b", b"lies", b"test"], id="a blank in the wildcard's label"),
        pytest.param([b"a\xff", b"lies", b"test"], id="an octet above 127"),
        pytest.param([b"\x07allowed", b"registry", b"test"], id="a length octet in a label"),
        pytest.param([b"x" * 63] * 3 + [b"evil", b"test"], id="a very long name"),
    ],
)
def test_name(field: Field, rogue: RogueDns, labels: list[bytes]) -> None:
    """A name that the attacker may register and answer for, and that passes for an allowed one."""
    name = wire_name(*labels)
    address = give(field, name)
    start = len(field.daemon.lines())
    ask(field, query(name))
    dns_line(field, start, "dns-not-listed")
    assert_shut(field, address)
    field.inside.reset()


def _marked_as_response(wire: bytes) -> bytes:
    return wire[:2] + b"\x81" + wire[3:]


@pytest.mark.parametrize(
    ("case", "make"),
    [
        pytest.param("silent-10", lambda name: query(name, questions=2), id="two questions"),
        pytest.param("silent-11", lambda _: query(b"\xc0\x0c"), id="a name that points at itself"),
        pytest.param("silent-12", lambda name: query(name)[:-1], id="a question cut off"),
        pytest.param("silent-13", lambda name: query(name)[:4], id="half a header"),
        pytest.param("silent-14", lambda name: query(name, kind=255), id="any type"),
        pytest.param("silent-15", lambda name: _marked_as_response(query(name)), id="marked as a response"),
    ],
)
def test_malformed_query(field: Field, rogue: RogueDns, case: str, make: Callable[[bytes], bytes]) -> None:
    """A query that the kernel reads otherwise than a resolver; a reply to it must find no query."""
    name = wire_name(*labels_of(f"{case}.lies.test"))
    address = give(field, name)
    item = field.inside.socket(socket.AF_INET, _DGRAM)
    item.bind((topology.CLIENT, 0))
    item.sendto(make(name), (lies.QUIET_RESOLVER, 53))
    start = len(field.daemon.lines())
    rogue.send(reply(name, address), topology.CLIENT, item.port(), source=lies.QUIET_RESOLVER)
    dns_line(field, start, "dns-no-query")
    assert_shut(field, address)
    field.inside.reset()


def test_afterwards(field: Field, rogue: RogueDns) -> None:
    """No attack: after all those lies a listed name still works."""
    assert topology.ALLOWED in field.inside.resolve(LISTED)
    tcp_connect(field.inside, topology.ALLOWED, PORT)
    field.inside.reset()

"""Names that clients ask for without being told to, and other protocols for names: nothing comes of them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial import lies
from tests.adversarial.actor import Actor
from tests.adversarial.field import Field, tcp_connect
from tests.adversarial.lookups import SHUT, ask, assert_shut, dns_line, give, is_open, name_of
from tests.adversarial.packets import A, address_for, query, record, reply, response
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.rogue import RogueDns

NS, CNAME, SOA, NULL, PTR, MX, TXT, SRV, ANY = 2, 5, 6, 10, 12, 15, 16, 33, 255
RESOLVER = topology.ROGUE_RESOLVER

MDNS, MDNS_PORT = "224.0.0.251", 5353
LLMNR, LLMNR_PORT = "224.0.0.252", 5355

core = pytest.mark.core


@pytest.fixture(scope="module")
def policy() -> str:
    return f"""\
version: 1
registries:
  - host: "*.lies.test"
refusals:
  responder: off
resolvers: [{RESOLVER}]
"""


@pytest.fixture(scope="module", autouse=True)
def rogue(lab: Lab) -> Iterator[RogueDns]:
    with RogueDns(lab.dns.node, Path(lies.__file__)) as result:
        yield result


@core
@pytest.mark.parametrize("kind", [NS, CNAME, SOA, NULL, PTR, MX, TXT, SRV, ANY, 0, 65535])
def test_other_type(field: Field, rogue: RogueDns, kind: int) -> None:
    """A query of another type for an allowed name, and a reply to it that has an address all the same."""
    name = name_of(f"silent-{100 + kind}.lies.test")
    address = give(field, name)
    item = ask(field, query(name, kind), replies=0)
    question = name + struct.pack("!HH", kind, 1)
    packed = socket.inet_aton(address)
    forged = struct.pack("!H", 7) + response(question, record(b"\xc0\x0c", A, packed))
    start = len(field.daemon.lines())
    rogue.send(forged, topology.CLIENT, item.port())
    assert item.recv() == forged
    dns_line(field, start, "dns-no-query")
    assert_shut(field, address)
    field.inside.reset()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("honest.lies.test.evil.test", id="the attacker's search domain"),
        pytest.param("lies.test", id="the search domain alone"),
        pytest.param("honest", id="a single label"),
        pytest.param("localhost", id="localhost"),
        pytest.param("5.0.20.10.in-addr.arpa", id="a reverse lookup"),
        pytest.param("a.0.0.0.1.0.0.0.ip6.arpa", id="a reverse lookup over IPv6"),
        pytest.param("honest.local", id="a name of mDNS"),
    ],
)
def test_other_name(field: Field, text: str) -> None:
    """What resolvers' clients make of an allowed name, or ask on their own."""
    name = name_of(text)
    address = give(field, name)
    start = len(field.daemon.lines())
    ask(field, query(name))
    dns_line(field, start, "dns-not-listed")
    assert_shut(field, address)
    field.inside.reset()


def test_root(field: Field, rogue: RogueDns) -> None:
    """The root has no label at all."""
    address = field.target().v4
    item = ask(field, query(b"\0"), replies=0)
    rogue.send(reply(b"\0", address), topology.CLIENT, item.port())
    assert_shut(field, address)
    field.inside.reset()


def test_search_domain_and_trailing_dot(field: Field) -> None:
    """No attack: with a search domain a name is tried in several forms, and with a trailing dot in one."""
    for text in ("dotted.lies.test.", "dotted.lies.test"):
        assert address_for(name_of("dotted.lies.test")) in _resolve(field, text)
    addresses = _resolve(field, "searched", search="lies.test")
    assert address_for(name_of("searched.lies.test")) in addresses
    for address in addresses:
        field.lab.blocked.node.add_addresses(address)
        tcp_connect(field.inside, address)
    evil = _resolve(field, "honest.lies.test", search="evil.test", dots=5)
    assert not is_open(field.inside, address_for(name_of("honest.lies.test.evil.test")))
    assert evil
    field.inside.reset()


def _resolve(field: Field, text: str, search: str = "", dots: int = 1) -> list[str]:
    """What the C library finds inside the scope; LOCALDOMAIN and RES_OPTIONS are of resolv.conf(5)."""
    argv = ["getent", "ahosts", text]
    env = {"RES_OPTIONS": f"ndots:{dots}", **({"LOCALDOMAIN": search} if search else {})}
    found = field.lab.client.run(argv, resolver=RESOLVER, env=env).check().stdout
    return list(dict.fromkeys(line.split()[0] for line in found.splitlines()))


def test_localhost(field: Field) -> None:
    """The hosts file has localhost, and the rules have not: this host stays shut."""
    assert "127.0.0.1" in field.inside.resolve("localhost")
    with pytest.raises(PermissionError):
        tcp_connect(field.inside, "127.0.0.1")
    field.inside.reset()


@pytest.mark.parametrize(
    ("group", "port"),
    [pytest.param(MDNS, MDNS_PORT, id="mDNS", marks=core), pytest.param(LLMNR, LLMNR_PORT, id="LLMNR")],
)
def test_question_to_the_link(field: Field, group: str, port: int) -> None:
    """Whoever is on the link may answer such a question, so nobody in the scope may ask it."""
    name = name_of(f"link-{port}.lies.test")
    address = give(field, name)
    item = field.inside.socket(socket.AF_INET, socket.SOCK_DGRAM)
    item.bind((topology.CLIENT, 0))
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        item.sendto(query(name), (group, port))
    field.reason(start, (SHUT,), group)
    # It is answered all the same, in the name of the resolver's host and of another one.
    with Actor(field.lab.dns.node) as here, Actor(field.lab.blocked.node) as there:
        for actor in (here, there):
            answering = actor.socket(socket.AF_INET, socket.SOCK_DGRAM)
            answering.bind((RESOLVER if actor is here else topology.BLOCKED, port))
            answering.sendto(reply(name, address), (topology.CLIENT, item.port()))
            assert item.recv() == reply(name, address)
    assert_shut(field, address)
    field.outside.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(query(name), (group, port))
    field.inside.reset()
    field.outside.reset()


def test_afterwards(field: Field) -> None:
    """No attack: an allowed name still works."""
    name = name_of("after-names.lies.test")
    address = give(field, name)
    ask(field, query(name))
    tcp_connect(field.inside, address)
    assert "Traceback" not in field.daemon.said()
    field.inside.reset()

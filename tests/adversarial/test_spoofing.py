"""Attacks from the network in a resolver's name: guessed ids, guessed ports, another way into the host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyroute2 import IPRoute

from tests.adversarial import lies
from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import Field, tcp_connect
from tests.adversarial.lookups import (
    ask,
    assert_opens,
    assert_shut,
    assert_stays_shut,
    dns_line,
    give,
    ignored_line,
    is_open,
    name_of,
    serve,
)
from tests.adversarial.packets import address_for, query, reply
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.rogue import RogueDns

IDENTIFIER = 0x1234
DRAINED = 1.5  # seconds until the daemon has read what thousands of replies make it tell
_ALL_IDENTIFIERS = (0, 65536)
_THE_IDENTIFIER = (IDENTIFIER, IDENTIFIER + 1)

_IP_TRANSPARENT = 19
_SIDE = "side0"
_ROGUE = topology.ROGUE_RESOLVER

core = pytest.mark.core


@pytest.fixture(scope="module")
def policy() -> str:
    """`noisy` is an exact name, which the daemon looks up itself; nobody asks for it here."""
    return f"""\
version: 1
registries:
  - host: "*.lies.test"
  - host: noisy.lies.test
refusals:
  responder: off
resolvers: [{_ROGUE}, {lies.QUIET_RESOLVER}]
"""


@pytest.fixture(scope="module", autouse=True)
def rogue(lab: Lab) -> Iterator[RogueDns]:
    """Trusted and honest. Before the daemon, as that looks up a name at its start."""
    with RogueDns(lab.dns.node, Path(lies.__file__)) as result:
        yield result


@pytest.fixture(scope="module")
def spoofer(field: Field) -> Iterator[Actor]:
    """Somebody on the network who may send in anybody's name."""
    with Actor(field.lab.blocked.node) as actor:
        yield actor


def in_the_name_of(actor: Actor, resolver: str, device: str | None = None) -> RemoteSocket:
    """A socket that sends from a resolver's address and port."""
    item = actor.socket(socket.AF_INET, socket.SOCK_DGRAM)
    item.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if device is not None:
        item.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
    item.bind((resolver, 53))
    return item


class Asking:
    """A client that has asked a resolver which says nothing."""

    def __init__(self, field: Field, text: str) -> None:
        self.name = name_of(text)
        self.true = give(field, self.name)
        self.item = ask(field, query(self.name, identifier=IDENTIFIER), 0, lies.QUIET_RESOLVER)
        self.port = self.item.port()

    def true_reply(self, rogue: RogueDns) -> None:
        """The resolver answers after all, and the client sees that behind all that came before."""
        wire = reply(self.name, self.true, IDENTIFIER)
        self.item.drain()
        self.item.settimeout(3.0)
        rogue.send(wire, topology.CLIENT, self.port, source=lies.QUIET_RESOLVER)
        assert self.item.recv() == wire


def test_all_identifiers(field: Field, rogue: RogueDns, spoofer: Actor) -> None:
    """All 65 536 ids to the right port, for a name that the client did not ask for."""
    asking = Asking(field, "silent-40.lies.test")
    target = field.target()
    server = in_the_name_of(spoofer, lies.QUIET_RESOLVER)
    wire = reply(name_of("other.lies.test"), target.v4)
    to = (topology.CLIENT, _one(asking.port))
    assert spoofer.call("spray", server.number, wire, _ALL_IDENTIFIERS, *to) == 65536
    assert_stays_shut(field, target.v4, DRAINED)
    asking.true_reply(rogue)
    tcp_connect(field.inside, asking.true)
    field.inside.reset()


def _one(port: int) -> tuple[int, int]:
    return port, port + 1


@core
def test_all_ports(field: Field, rogue: RogueDns, spoofer: Actor) -> None:
    """The right id and question to all ports but the right one, and to that one another question."""
    asking = Asking(field, "silent-41.lies.test")
    target = field.target()
    server = in_the_name_of(spoofer, lies.QUIET_RESOLVER)
    right, wrong = reply(asking.name, target.v4), reply(name_of("other.lies.test"), target.v4)
    for wire, ports in (
        (right, (1, asking.port)),
        (wrong, _one(asking.port)),
        (right, (asking.port + 1, 65536)),
    ):
        spoofer.call("spray", server.number, wire, _THE_IDENTIFIER, topology.CLIENT, ports)
    assert_stays_shut(field, target.v4, DRAINED)
    asking.true_reply(rogue)
    tcp_connect(field.inside, asking.true)
    field.inside.reset()


def test_before_and_after_the_true_reply(field: Field, rogue: RogueDns, spoofer: Actor) -> None:
    """Forged replies around the true one: wrong in one thing before it, right in all of them behind it."""
    asking = Asking(field, "silent-42.lies.test")
    target = field.target()
    server = in_the_name_of(spoofer, lies.QUIET_RESOLVER)
    to = (topology.CLIENT, asking.port)
    server.sendto(reply(asking.name, target.v4, IDENTIFIER ^ 1), to)
    server.sendto(reply(name_of("other.lies.test"), target.v4, IDENTIFIER), to)
    server.sendto(reply(asking.name, target.v4, IDENTIFIER)[:11], to)
    in_the_name_of(spoofer, lies.STRANGER).sendto(reply(asking.name, target.v4, IDENTIFIER), to)
    asking.true_reply(rogue)
    tcp_connect(field.inside, asking.true)
    server.sendto(reply(asking.name, target.v4, IDENTIFIER), to)
    assert asking.item.recv() == reply(asking.name, target.v4, IDENTIFIER)
    assert_shut(field, target.v4)
    # A client outside the scope believes it, and gets there.
    tcp_connect(field.outside, target.v4)
    field.inside.reset()
    field.outside.reset()


def test_forged_replies_to_the_daemon(field: Field) -> None:
    """The daemon asks too, and before the resolver's reply come others, of which one has a wrong id."""
    address = address_for(name_of("noisy.lies.test"))
    serve(field, address)
    assert is_open(field.inside, address), field.daemon.said()
    field.inside.reset()


@pytest.fixture(scope="module")
def side_door(lab: Lab) -> Iterator[str]:
    """A second cable between the client and the attacker. The client checks no source addresses there."""
    client, attacker = lab.client, lab.blocked.node
    with IPRoute(netns=client.namespace.name) as netlink:
        peer = {"ifname": _SIDE, "net_ns_fd": attacker.namespace.name}
        netlink.link("add", ifname=_SIDE, kind="veth", peer=peer)
    _set_up(attacker, "add", topology.CLIENT, _set_up(client))
    _tell(client, f"/proc/sys/net/ipv4/conf/{_SIDE}/rp_filter", 0)
    _tell(client, "/proc/sys/net/ipv4/conf/all/rp_filter", 0)
    yield _SIDE
    with IPRoute(netns=client.namespace.name) as netlink:
        netlink.link("del", index=netlink.link_lookup(ifname=_SIDE)[0])


def _set_up(node: Node, *neighbour: str) -> str:
    """Switches the end of the cable on; returns its hardware address."""
    with IPRoute(netns=node.namespace.name) as netlink:
        index = netlink.link_lookup(ifname=_SIDE)[0]
        netlink.link("set", index=index, state="up")
        if neighbour:
            command, address, hardware = neighbour
            netlink.neigh(command, dst=address, lladdr=hardware, ifindex=index, state="permanent")
        (link,) = netlink.get_links(index)
        return _attribute(link)


def _attribute(link: Any) -> str:
    return str(link.get_attr("IFLA_ADDRESS"))


def _tell(node: Node, setting: str, value: int) -> None:
    node.run(["sh", "-c", f"echo {value} >{setting}"], cgroup=node.services).check()


@core
def test_another_interface(field: Field, rogue: RogueDns, spoofer: Actor, side_door: str) -> None:
    """All is right with the reply but the cable that it comes by. The name is asked again of the resolver."""
    name = name_of("deaf-1.lies.test")
    true, target = give(field, name), field.target()
    asking = ask(field, query(name, identifier=IDENTIFIER), 0)
    server = in_the_name_of(spoofer, _ROGUE, side_door)
    start = len(field.daemon.lines())
    forged = reply(name, target.v4, IDENTIFIER)
    server.sendto(forged, (topology.CLIENT, asking.port()))
    assert asking.recv() == forged
    dns_line(field, start, "dns-wrong-interface", "deaf-1.lies.test")
    assert_opens(field, true)
    assert_shut(field, target.v4)
    tcp_connect(field.outside, target.v4)
    field.inside.reset()
    field.outside.reset()


@core
def test_another_interface_and_name(field: Field, rogue: RogueDns, spoofer: Actor, side_door: str) -> None:
    """The same, about a name of the attacker's: that is asked again, as if the client had asked for it."""
    evil = name_of("side.evil.test")
    address = give(field, evil)
    asking = ask(field, query(name_of("silent-43.lies.test"), identifier=IDENTIFIER), 0)
    start = len(field.daemon.lines())
    forged = reply(evil, "192.0.2.1", IDENTIFIER)
    in_the_name_of(spoofer, _ROGUE, side_door).sendto(forged, (topology.CLIENT, asking.port()))
    assert asking.recv() == forged
    ignored_line(field, start)
    assert_stays_shut(field, address, 1.0)
    field.inside.reset()

"""Attacks with sockets that are older than the enforcement."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import PORT, Field, Target, governed
from tests.adversarial.packets import ACK, ipv4, tcp
from tests.lab import topology
from tests.lab.lab import Lab

UNKNOWN = "denied-unknown-address"
TARGET = Target("198.51.100.1", "2001:db8:51::1")
ECHO = 7007


@dataclass
class Old:
    """What was there before enforcement began. All of it was made in the scope."""

    opened: RemoteSocket
    established: RemoteSocket
    established_v6: RemoteSocket
    datagrams: RemoteSocket
    raw: RemoteSocket
    allowed: RemoteSocket
    allowed_end: RemoteSocket


@pytest.fixture(scope="module")
def old(lab: Lab) -> Iterator[Old]:
    lab.blocked.node.add_addresses(TARGET.v4, TARGET.v6)
    with Actor(lab.client, lab.client_cgroup) as actor, Actor(lab.allowed.node) as far:
        server = far.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.bind(("0.0.0.0", ECHO))
        server.listen()

        def connected(address: str, port: int = PORT, kind: int = socket.SOCK_STREAM) -> RemoteSocket:
            item = actor.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
            item.connect((address, port))
            return item

        allowed = connected(topology.ALLOWED, ECHO)
        yield Old(
            opened=actor.socket(socket.AF_INET, socket.SOCK_STREAM),
            established=connected(TARGET.v4),
            established_v6=connected(TARGET.v6),
            datagrams=connected(TARGET.v4, kind=socket.SOCK_DGRAM),
            raw=actor.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
            allowed=allowed,
            allowed_end=server.accept(),
        )


@pytest.fixture(scope="module")
def policy() -> str:
    return f"""\
version: 1
registries:
  - host: allowed.registry.test
    ports: [443, {ECHO}]
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""


@pytest.fixture(scope="module")
def field(lab: Lab, policy: str, old: Old) -> Iterator[Field]:
    """As in conftest.py, but not before the old sockets are there."""
    with governed(lab, policy) as daemon, Field(lab, daemon) as result:
        result.arrived(TARGET)  # what came before
        yield result


@pytest.mark.core
def test_connect_later(field: Field, old: Old) -> None:
    """The socket was made before anybody watched the making of sockets."""
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        old.opened.connect((TARGET.v4, 8443))
    field.line(start, lambda line: line.get("port") == 8443 and line["reason"] == UNKNOWN, "port 8443")
    assert not field.arrived(TARGET)


@pytest.mark.core
def test_established_connection(field: Field, old: Old) -> None:
    """The connection is older than the policy, and so is what it carries."""
    start = len(field.daemon.lines())
    old.established.send(b"GET / HTTP/1.1\r\n\r\n")
    field.reason(start, (UNKNOWN,), TARGET.v4)
    assert not field.arrived(TARGET)


def test_established_connection_v6(field: Field, old: Old) -> None:
    """The same over IPv6."""
    start = len(field.daemon.lines())
    old.established_v6.send(b"GET / HTTP/1.1\r\n\r\n")
    field.reason(start, (UNKNOWN,), TARGET.v6)
    assert not field.arrived(TARGET)


@pytest.mark.core
def test_connected_datagram_socket(field: Field, old: Old) -> None:
    """A UDP socket that was connected before needs no connect() any more."""
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        old.datagrams.send(b"x")
    field.reason(start, (UNKNOWN,), TARGET.v4)
    assert not field.arrived(TARGET)


def test_raw_socket(field: Field, old: Old) -> None:
    """A raw socket that was opened before."""
    start = len(field.daemon.lines())
    packet = ipv4(topology.CLIENT, TARGET.v4, 6, tcp(topology.CLIENT, TARGET.v4, PORT, ACK))
    with pytest.raises(PermissionError):
        old.raw.sendto(packet, (TARGET.v4, 0))
    field.reason(start, (UNKNOWN,), TARGET.v4)
    assert not field.arrived(TARGET)


@pytest.mark.core
def test_connection_to_an_allowed_registry(field: Field, old: Old) -> None:
    """No attack: a pull from an allowed registry that is under way goes on."""
    old.allowed.send(b"more")
    assert old.allowed_end.recv() == b"more"
    old.allowed_end.send(b"and back")
    assert old.allowed.recv() == b"and back"

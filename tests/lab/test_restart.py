"""What outlives the daemon beside the enforcement: what was learned, and connections that are open."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import ScopedDaemon, governed, wait_line

from . import topology
from .lab import Lab
from .pace import PACE

pytestmark = pytest.mark.root

PORT = 8080
NAME = "one.wild.registry.test"
REQUEST = f"GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()

WILD = '  - host: "*.wild.registry.test"\n    private: true\n    ports: [8080]\n'
# With other numbers for all rules and lists of ports.
MORE = (
    "  - host: first.registry.test\n    ports: [1, 2]\n"
    '  - host: "*.deep.wild.registry.test"\n    ports: [3]\n'
    "  - host: zz.wild.registry.test\n    ports: [8080, 9090]\n"
)
LONG = "dns: { minimum_ttl_seconds: 3600 }\n"  # a slow machine takes its time to start a daemon
SHORT = "dns: { grace_seconds: 0, maximum_ttl_seconds: 1 }\n"


def policy(*registries: str, more: str = "") -> str:
    more = f"refusals: {{ responder: off }}\n{more if 'dns:' in more else LONG + more}"
    return f"version: 1\nregistries:\n{''.join(registries)}resolvers: [{Lab.resolver}]\n{more}"


@pytest.fixture
def server(lab: Lab) -> Iterator[RemoteSocket]:
    """Accepts connections at the allowed registry's address."""
    lab.dns.set_records(NAME, [topology.ALLOWED])
    with Actor(lab.allowed.node) as actor:
        item = actor.socket(socket.AF_INET, socket.SOCK_STREAM)
        item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        item.bind((topology.ALLOWED, PORT))
        item.listen()
        yield item


def connected(inside: Actor) -> RemoteSocket:
    item = inside.socket(socket.AF_INET, socket.SOCK_STREAM)
    item.settimeout(5 * PACE)
    item.connect((topology.ALLOWED, PORT))
    return item


def is_open(inside: Actor) -> bool:
    try:
        connected(inside)
    except PermissionError:
        return False
    return True


def talk(client: RemoteSocket, server: RemoteSocket, said: bytes) -> None:
    """In both directions."""
    client.send(said)
    assert server.recv() == said
    server.send(said[::-1])
    assert client.recv() == said[::-1]


@pytest.mark.core
def test_learned(lab: Lab, scope: Path, inside: Actor, server: RemoteSocket) -> None:
    """Whoever has an address from before need not ask again."""
    with ScopedDaemon(lab, policy(WILD), scopes=[scope]) as first:
        assert not is_open(inside)
        assert inside.resolve(NAME) == [topology.ALLOWED]
        assert is_open(inside)
        assert first.signal(signal.SIGKILL) == -signal.SIGKILL
    with governed(lab, policy(MORE, WILD), scopes=[scope]):
        assert is_open(inside)


def test_learned_by_a_rule_that_is_gone(lab: Lab, scope: Path, inside: Actor, server: RemoteSocket) -> None:
    with ScopedDaemon(lab, policy(WILD), scopes=[scope]) as first:
        assert inside.resolve(NAME) == [topology.ALLOWED]
        assert is_open(inside)
        assert first.signal(signal.SIGKILL) == -signal.SIGKILL
    with governed(lab, policy(MORE), scopes=[scope]):
        assert not is_open(inside)


@pytest.mark.core
def test_open_connection(lab: Lab, scope: Path, inside: Actor, server: RemoteSocket) -> None:
    """It goes on, though its address is no longer open to new ones."""
    with ScopedDaemon(lab, policy(WILD, more=SHORT), scopes=[scope]) as first:
        inside.resolve(NAME)
        client = connected(inside)
        peer = server.accept()
        talk(client, peer, REQUEST)
        time.sleep(1.5)
        assert not is_open(inside)
        assert first.signal(signal.SIGKILL) == -signal.SIGKILL
    talk(client, peer, b"while nobody is there")
    with governed(lab, policy(MORE, WILD, more=SHORT), scopes=[scope]) as second:
        talk(client, peer, b"and behind that")
        assert not is_open(inside)
        assert [line for line in second.lines() if line.get("reason") == "denied-removed"] == []


@pytest.mark.core
def test_connection_whose_rule_is_gone(lab: Lab, scope: Path, inside: Actor, server: RemoteSocket) -> None:
    with ScopedDaemon(lab, policy(WILD), scopes=[scope]) as first:
        inside.resolve(NAME)
        client = connected(inside)
        peer = server.accept()
        talk(client, peer, REQUEST)
        assert first.signal(signal.SIGKILL) == -signal.SIGKILL
    with governed(lab, policy(MORE), scopes=[scope]) as second:
        client.send(b"more")
        line = wait_line(second, 0, lambda line: line.get("reason") == "denied-removed", "the cut")
        assert (line["event"], line["address"]) == ("denied", topology.ALLOWED)
        before = time.monotonic()
        with pytest.raises(OSError):
            client.recv()
        assert time.monotonic() - before < 2 * PACE
        peer.settimeout(0.3)
        with pytest.raises(OSError):
            peer.recv()  # or it would be what was sent

"""How long what was learned holds, and that wildcards allow only what was asked for."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import eventually, governed, tcp_connect, wait_denied, wait_line

from . import topology
from .daemon import Daemon
from .dns import Addresses
from .lab import Lab

ECHO = 7007
TTL = 1

# Names of this file. Only wildcards match them, so nobody but a client asks for them.
EXPIRING = "expiring.time.test"
LASTING = "lasting.time.test"
DEEP = "a.b.deep.test"
KNOWN = "known.time.test"

# An address of its own for each: the resolver's answers for one name must not open another one's.
ADDRESSES = {
    EXPIRING: topology.MANY[0],
    LASTING: topology.MANY[1],
    DEEP: topology.MANY[2],
    KNOWN: topology.MANY[3],
    "exact.registry.test": topology.MANY[4],
}


def policy(grace: int) -> str:
    return f"""\
version: 1
registries:
  - host: "*.time.test"
    ports: [443, {ECHO}]
    private: true
  - host: "**.deep.test"
    private: true
  - host: exact.registry.test
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
dns: {{ grace_seconds: {grace}, minimum_ttl_seconds: 1 }}
"""


@pytest.fixture(scope="module")
def names(lab: Lab) -> Iterator[None]:
    lifetimes = {EXPIRING: TTL, LASTING: TTL}
    lab.dns.update({n: Addresses((a,), lifetimes.get(n, 60)) for n, a in ADDRESSES.items()})
    yield
    lab.dns.update(dict.fromkeys(ADDRESSES))


@pytest.fixture(scope="module")
def inside(lab: Lab, names: None) -> Iterator[Actor]:
    """Older than the daemon: what it knows of names, it knows from before."""
    with Actor(lab.client, lab.client_cgroup) as result:
        assert result.resolve(KNOWN) == [ADDRESSES[KNOWN]]
        assert result.resolve("exact.registry.test") == [ADDRESSES["exact.registry.test"]]
        yield result


@pytest.fixture(scope="module")
def daemon(lab: Lab, inside: Actor) -> Iterator[Daemon]:
    with governed(lab, policy(grace=0)) as result:
        yield result


def test_exact_name_known_from_before(daemon: Daemon, inside: Actor) -> None:
    """The client looked it up before we came, and does not ask again."""
    tcp_connect(inside, ADDRESSES["exact.registry.test"])


def test_wildcard_name_known_from_before(lab: Lab, daemon: Daemon, inside: Actor) -> None:
    """Nobody can know which names a wildcard means, so such a client has to ask again."""
    with pytest.raises(PermissionError):
        tcp_connect(inside, ADDRESSES[KNOWN])
    inside.resolve(KNOWN)
    tcp_connect(inside, ADDRESSES[KNOWN])


@pytest.mark.core
def test_connection_outlives_its_answer(lab: Lab, daemon: Daemon, inside: Actor) -> None:
    start = len(daemon.lines())
    address = ADDRESSES[EXPIRING]
    with Actor(lab.allowed.node) as far:
        server = far.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.bind((address, ECHO))
        server.listen()
        assert inside.resolve(EXPIRING) == [address]
        client = inside.socket(socket.AF_INET, socket.SOCK_STREAM)
        client.connect((address, ECHO))
        accepted = server.accept()
        time.sleep(TTL + 0.2)
        with pytest.raises(PermissionError):
            tcp_connect(inside, address, ECHO)
        line = wait_denied(daemon, start, address, ECHO)
        assert line["reason"] == "denied-expired"
        assert "expired" in line["explanation"]
        assert line["host"] == EXPIRING
        question = f"GET / HTTP/1.1\r\nHost: {EXPIRING}:{ECHO}\r\n\r\n".encode()
        client.send(question)
        assert accepted.recv() == question
        accepted.send(b"answer")
        assert client.recv() == b"answer"
        inside.resolve(EXPIRING)
        tcp_connect(inside, address, ECHO)


def test_deep_wildcard(daemon: Daemon, inside: Actor) -> None:
    with pytest.raises(PermissionError):
        tcp_connect(inside, ADDRESSES[DEEP])
    inside.resolve(DEEP)
    tcp_connect(inside, ADDRESSES[DEEP])


def test_grace(lab: Lab, names: None) -> None:
    address = ADDRESSES[LASTING]
    scope = lab.new_cgroup("grace")
    with Actor(lab.client, scope) as actor, governed(lab, policy(grace=2), scopes=[scope]) as daemon:
        actor.resolve(LASTING)
        time.sleep(TTL + 0.3)
        start = len(daemon.lines())
        tcp_connect(actor, address)
        line = wait_line(daemon, start, lambda line: line.get("address") == address, "the grace")
        assert line["reason"] == "allowed-grace"
        assert line["address"] == address

        def refused() -> bool:
            try:
                tcp_connect(actor, address)
            except PermissionError:
                return True
            return False

        assert eventually(refused, patience=5.0)

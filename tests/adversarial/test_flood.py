"""Attacks by sheer number."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import Field, tcp_connect
from tests.lab.lab import Lab

QUIET_RESOLVER = "10.77.0.57"  # takes queries and never answers
COUNT = 20_000


@pytest.fixture(scope="module")
def policy() -> str:
    """Wildcards, as addresses of exact names are known without any query of the client's."""
    return f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
  - host: "*.flood.test"
resolvers: [{Lab.resolver}, {QUIET_RESOLVER}]
"""


@pytest.fixture(scope="module")
def quiet_resolver(field: Field) -> Iterator[None]:
    field.lab.dns.node.add_addresses(QUIET_RESOLVER)
    # Nobody reads what it gets, and nobody says that the port is closed.
    with Actor(field.lab.dns.node) as actor:
        actor.socket(socket.AF_INET, socket.SOCK_DGRAM).bind((QUIET_RESOLVER, 53))
        yield


@pytest.mark.parametrize(
    "suffix",
    [pytest.param("evil.test", id="for unlisted names"), pytest.param("flood.test", id="for listed names")],
)
def test_queries(field: Field, quiet_resolver: None, suffix: str) -> None:
    """So many outstanding queries that those of an honest client are forgotten before their replies."""
    pulls = []
    with Actor(field.lab.client, field.lab.client_cgroup) as flooding:
        flooding.start("flood", QUIET_RESOLVER, COUNT, suffix)
        for _ in range(4):
            pulls.append(field.lab.client.pull(f"cdn.allowed.registry.test/{field.lab.image_name}"))
        assert flooding.finish() == COUNT
    for pull in pulls:
        pull.check()
        assert pull.seconds < 5
    target = field.target()
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        tcp_connect(field.inside, target.v4)
    field.reason(start, ("denied-unknown-address",), target)
    assert not field.arrived(target)

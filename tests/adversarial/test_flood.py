"""Attacks by sheer number, from inside of one scope."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import Field, governed, tcp_connect
from tests.adversarial.lookups import assert_stays_shut, is_open
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.node import Node

SILENT = "10.77.0.57"  # takes queries and never answers
_ANSWERED = " and their addresses"  # so end the ids of tests that ask TALKATIVE
TALKATIVE = "10.77.0.58"  # answers each with an address that no other has
FEW = 20_000
MANY = 1_000_000
SETTLED = 1.2  # seconds in which the daemon has read what a flood has left

EXACT = "allowed.registry.test"


@pytest.fixture(scope="module")
def policy() -> str:
    """A wildcard, as addresses of exact names are known without any query; and an exact name."""
    return f"""\
version: 1
registries:
  - host: "*.{EXACT}"
    private: true
  - host: {EXACT}
    private: true
  - host: "*.flood.test"
refusals:
  responder: off
resolvers: [{Lab.resolver}, {SILENT}, {TALKATIVE}]
"""


@pytest.fixture(scope="module")
def calm_scope(lab: Lab) -> Path:
    """Where nobody floods anybody."""
    return lab.new_cgroup("calm")


@pytest.fixture(scope="module")
def field(lab: Lab, policy: str, calm_scope: Path) -> Iterator[Field]:
    """As in conftest.py, with two scopes."""
    with governed(lab, policy, scopes=[lab.client_cgroup, calm_scope]) as daemon:
        with Field(lab, daemon) as result:
            yield result


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flood") / "done"


@pytest.fixture(scope="module")
def resolvers(request: pytest.FixtureRequest, field: Field, done: Path) -> Iterator[None]:
    node: Node = field.lab.dns.node
    asked = any(f"{_ANSWERED}]" in item.nodeid for item in request.session.items)
    node.add_addresses(SILENT, TALKATIVE)
    with Actor(node) as silent, Actor(node) as talkative:
        # Nobody reads what it gets, and nobody says that the port is closed.
        silent.socket(socket.AF_INET, socket.SOCK_DGRAM).bind((SILENT, 53))
        item = talkative.socket(socket.AF_INET, socket.SOCK_DGRAM)
        item.bind((TALKATIVE, 53))
        talkative.start("answer", item.number, str(done))
        yield
        done.touch()
        assert (talkative.finish() > 0) == asked


def pull(field: Field, scope: Path, host: str) -> None:
    done = field.lab.client.pull(f"{host}/{field.lab.image_name}", cgroup=scope)
    done.check()
    assert done.seconds < 15  # 0.1 on a host; a guest without acceleration takes 5 by itself


@pytest.mark.parametrize(
    ("resolver", "suffix", "count"),
    [
        pytest.param(SILENT, "evil.test", FEW, id="some unlisted names", marks=pytest.mark.core),
        pytest.param(SILENT, "flood.test", FEW, id="some listed names", marks=pytest.mark.core),
        pytest.param(SILENT, "evil.test", MANY, id="a million unlisted names", marks=pytest.mark.heavy),
        pytest.param(TALKATIVE, "evil.test", FEW, id=f"unlisted names{_ANSWERED}"),
        pytest.param(TALKATIVE, "flood.test", FEW * 5, id=f"listed names{_ANSWERED}"),
    ],
)
def test_queries(
    field: Field, calm_scope: Path, resolvers: None, resolver: str, suffix: str, count: int
) -> None:
    """So many queries that those of another scope, and addresses of the policy's names, are forgotten."""
    pulls = 0
    with Actor(field.lab.client, field.lab.client_cgroup) as flooding:
        flooding.start("flood", resolver, count, suffix)
        while pulls < 4 or (pulls < 40 and not flooding.has_finished()):
            pull(field, calm_scope, f"cdn.{EXACT}")
            pull(field, calm_scope, EXACT)
            pulls += 2
            assert is_open(field.inside, topology.ALLOWED)
        assert flooding.finish() == count
    target = field.target()
    assert_stays_shut(field, target.v4, SETTLED)
    assert not field.arrived(target)
    pull(field, field.lab.client_cgroup, f"cdn.{EXACT}")


def test_refusals(field: Field, calm_scope: Path) -> None:
    """No queries: so many connections that are refused that the daemon reads of nothing else."""
    target = field.target()
    stop = field.lab.directory / "refused-enough"
    with Actor(field.lab.client, field.lab.client_cgroup) as flooding:
        flooding.start("hammer", target.v4, 443, str(stop))
        for _ in range(3):
            pull(field, calm_scope, f"cdn.{EXACT}")
            pull(field, calm_scope, EXACT)
        stop.touch()
        assert set(flooding.finish()) == {"EPERM"}
    assert not field.arrived(target)
    tcp_connect(field.inside, topology.ALLOWED)
    field.inside.reset()

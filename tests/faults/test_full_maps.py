"""More of everything than the kernel's maps of a scope have room for."""

from __future__ import annotations

import errno
import socket
import time
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor
from tests.lab import topology
from tests.lab.lab import Lab

from .conftest import Extent
from .instances import Instances, policy
from .stream import Settings
from .traffic import FRESH, PORT, RESOLVER, FarEnds, Traffic

_LEARNED = 8192  # of dataplane/scope_maps.py
_AT_ONCE = 100


def _learn(ends: FarEnds, flooding: Actor, count: int) -> None:
    """So many names of the policy's, each with an address of its own, as quickly as the resolver answers."""
    for _ in range(0, count, _AT_ONCE):
        before = ends.queries()
        assert flooding.call("flood", RESOLVER, _AT_ONCE, FRESH) == _AT_ONCE
        while ends.queries() < before + _AT_ONCE:
            time.sleep(0.01)


def test_learned_addresses(
    lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent
) -> None:
    """The least recently used ones go. A killed instance leaves all of them, and the next one has them."""
    instances.start()
    with Traffic(lab, ends, scope) as traffic, Actor(lab.client, scope) as flooding:
        _learn(ends, flooding, extent.of(_LEARNED + 2000, 10 * _LEARNED))
        instances.kill()
        _learn(ends, flooding, 1000)
        instances.start(policy(others=True))
        traffic.finish().assert_right()


@pytest.mark.long
def test_beginnings_of_connections(
    lab: Lab, ends: FarEnds, scope: Path, instances: Instances, tmp_path: Path, extent: Extent
) -> None:
    """Thousands that begin, and never say their name."""
    instances.start()
    halves = []
    with Traffic(lab, ends, scope) as traffic, Actor(lab.client, scope) as holding:
        for _ in range(extent.of(600, 6000)):
            item = holding.socket(socket.AF_INET, socket.SOCK_STREAM)
            item.connect((topology.ALLOWED, PORT))
            item.send(b"\x16\x03\x01\x02\x00\x01")
            halves.append(item)
            if len(halves) > 500:
                halves.pop(0).close()
        traffic.finish().assert_right()


@pytest.mark.long
def test_connections_at_a_device(
    lab: Lab, ends: FarEnds, at_switch: Instances, tmp_path: Path, extent: Extent
) -> None:
    """Of more than are remembered, those that are used stay: the kept one goes on."""
    at_switch.start()
    done = tmp_path / "done"
    settings = Settings(errors=(errno.ECONNREFUSED,), datagrams=False)
    with Traffic(lab, ends, None, settings) as traffic, Actor(lab.client) as hammering:
        hammering.start("hammer", topology.ALLOWED, PORT, str(done))
        time.sleep(extent.of(15.0, 120.0))
        done.touch()
        outcomes = hammering.finish()
        assert set(outcomes) == {"connected"}, outcomes
        assert outcomes["connected"] > 8192, outcomes
        traffic.finish().assert_right()

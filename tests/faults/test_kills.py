"""kill -9, again and again."""

from __future__ import annotations

import errno
import random
import time
from pathlib import Path

import pytest

from tests.lab.lab import Lab

from .conftest import Extent
from .instances import Instances, policy
from .stream import Settings
from .traffic import FarEnds, Traffic

_SEED = 7
_RESPONDER = 30.0  # seconds in which it answers
_START = 2.0  # seconds, up to which it is killed while it starts


def _kill_often(instances: Instances, count: int, text: str | None = None) -> None:
    """At random moments of its start, and while it serves; the last one stays."""
    chance = random.Random(_SEED)
    for number in range(count):
        if number % 2:
            instances.begin(text)
            time.sleep(chance.uniform(0.0, _START))
        else:
            instances.start(text)
            time.sleep(chance.uniform(0.0, 0.5))
        instances.kill()
        time.sleep(chance.uniform(0.0, 0.3))
    instances.start(text)


def test_control_group(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent) -> None:
    instances.start()
    with Traffic(lab, ends, scope) as traffic:
        instances.kill()
        _kill_often(instances, extent.of(2, 50))
        traffic.finish().assert_right()


@pytest.mark.long
def test_responder(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent) -> None:
    """Refusals are answered while it lives, and EPERM while it does not."""
    text = policy(responder=True)
    instances.start(text)
    with Traffic(lab, ends, scope) as traffic:
        instances.kill()
        _kill_often(instances, extent.of(2, 50), text)
        before, deadline = traffic.so_far().done.get("answered", 0), time.monotonic() + _RESPONDER
        while traffic.so_far().done.get("answered", 0) == before:
            assert time.monotonic() < deadline, instances.current.lines()[-5:]
            time.sleep(0.2)
        traffic.finish().assert_right()


@pytest.mark.long
def test_device(lab: Lab, ends: FarEnds, at_switch: Instances, extent: Extent) -> None:
    at_switch.start()
    settings = Settings(errors=(errno.ECONNREFUSED,), datagrams=False)
    with Traffic(lab, ends, None, settings) as traffic:
        at_switch.kill()
        _kill_often(at_switch, extent.of(2, 50))
        traffic.finish().assert_right()

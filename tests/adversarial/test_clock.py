"""Attacks by the time of day: whoever sets the clock makes answers last for ever, or end at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.field import Field, tcp_connect
from tests.adversarial.lookups import ask, assert_shut, name_of
from tests.adversarial.packets import query
from tests.lab import topology
from tests.lab.dns import Addresses
from tests.lab.lab import Lab

pytestmark = [pytest.mark.guest, pytest.mark.core]

SHORT = "clock-short.allowed.registry.test"
LONG = "clock-long.allowed.registry.test"
DAY = 86400.0


@pytest.fixture(scope="module")
def policy(lab: Lab) -> str:
    lab.dns.update({SHORT: Addresses((topology.CDN,), 2), LONG: Addresses((topology.MANY[0],), 300)})
    return f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
dns: {{ grace_seconds: 0 }}
"""


@pytest.fixture
def clock() -> Iterator[None]:
    """The time of day, which is the whole machine's: put right again behind the test."""
    first = Path("/proc/1/cmdline").read_bytes()
    assert b"guest_init.sh" in first, "this sets the clock of the machine, so it runs in a guest alone"
    before, since = time.time(), time.monotonic()
    yield
    time.clock_settime(time.CLOCK_REALTIME, before + time.monotonic() - since)


@pytest.mark.parametrize(
    "seconds", [pytest.param(DAY, id="a day ahead"), pytest.param(-DAY, id="a day back")]
)
def test_time_of_day(field: Field, clock: None, seconds: float) -> None:
    """Neither does an answer outlive its time, nor does it end before that."""
    for name in (SHORT, LONG):
        ask(field, query(name_of(name)), resolver=topology.RESOLVER)
    tcp_connect(field.inside, topology.CDN)
    learned = time.monotonic()
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)
    tcp_connect(field.inside, topology.MANY[0])
    time.sleep(max(learned + 2.2 - time.monotonic(), 0))
    assert_shut(field, topology.CDN, "denied-expired")
    tcp_connect(field.inside, topology.MANY[0])
    field.inside.reset()

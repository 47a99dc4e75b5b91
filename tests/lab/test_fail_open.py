"""`fail: open`: what is enforced when the daemon is gone for longer than its lease, and when one is back."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon, governed, tcp_connect, wait_denied

from . import switch, topology
from .lab import Lab

pytestmark = pytest.mark.root

LEASE = 10  # seconds: the least that there may be
POLICY = f"{switch.POLICY}refusals: {{ responder: off }}\nfail: open\nlease_seconds: {LEASE}\n"


def is_refused(inside: Actor) -> bool:
    inside.reset()
    try:
        tcp_connect(inside, topology.BLOCKED)
    except PermissionError:
        return True
    return False


def test_the_daemon_is_killed_and_comes_back(lab: Lab, scope: Path, inside: Actor) -> None:
    with ScopedDaemon(lab, POLICY, scopes=[scope]) as first:
        assert is_refused(inside)
        killed = time.monotonic()
        assert first.signal(signal.SIGKILL) == -signal.SIGKILL
    while is_refused(inside):
        assert time.monotonic() - killed < LEASE + 3
        time.sleep(0.2)
    # It has last said that it lives up to a second and a bit before.
    assert time.monotonic() - killed > LEASE - 3
    assert not is_refused(inside)
    with governed(lab, POLICY, scopes=[scope]) as second:
        start = len(second.lines())
        assert is_refused(inside)
        assert wait_denied(second, start, topology.BLOCKED)["event"] == "denied"

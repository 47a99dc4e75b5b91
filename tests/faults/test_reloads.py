"""Reloads between policies, and policy files that are none."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ram_ebpf.daemon import last_good
from tests.lab.lab import Lab

from .conftest import Extent
from .instances import Instances, policy, take, wait_reloaded
from .memory import measure
from .traffic import FarEnds, Traffic

_GROWTH = 8 << 20  # bytes by which a process may grow, which has its allocator's habits
_REMARKS = 1 << 16


@pytest.mark.long
def test_many(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent) -> None:
    """In the end as much memory is taken as after the first ones."""
    daemon = instances.start()
    with Traffic(lab, ends, scope) as traffic:
        for number in range(extent.of(4, 200)):
            text = policy(others=number % 2 == 0, more=f"message: this is number {number}\n")
            assert take(daemon, text)["event"] == "reloaded"
            if number == extent.of(1, 20):
                before = measure(daemon.pid)
        after = measure(daemon.pid)
        traffic.finish().assert_right()
    assert after.bpf <= before.bpf + _REMARKS, (before, after)
    assert after.descriptors <= before.descriptors + 4, (before, after)
    assert after.resident <= before.resident + _GROWTH, (before, after)


def test_wrong_files(lab: Lab, ends: FarEnds, scope: Path, instances: Instances) -> None:
    """Garbage, nothing, half of it, none: what was enforced stays, also over a start."""
    daemon = instances.start()
    good = daemon.policy_file.read_bytes()
    with Traffic(lab, ends, scope) as traffic:
        for wrong in (
            bytes(range(256)) * 40,
            b"",
            good[: len(good) // 2],
            b"version: 1\nregistries: []\nx: 1\n",
        ):
            start = len(daemon.lines())
            daemon.policy_file.write_bytes(wrong)  # in place, as an editor that is killed
            assert wait_reloaded(daemon, start)["event"] == "reload-failed"
        state = Path(lab.client.env["RAM_EBPF_STATE"])
        kept = last_good.place_of(str(daemon.policy_file), state)
        assert kept.read_bytes() == good
        daemon.policy_file.unlink()
        time.sleep(1.5)
        instances.kill()
        again = instances.begin()
        kept.rename(last_good.place_of(str(again.policy_file), state))
        again.policy_file.write_bytes(b"\0")
        again.wait_ready()
        assert "the policy that was enforced last is used" in again.said()
        traffic.finish().assert_right()

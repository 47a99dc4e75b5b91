"""Others at the same places: programs of other software, and a second copy of ram-ebpf."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from ram_ebpf.dataplane.cgroups import others_attached, ours_attached
from ram_ebpf.dataplane.programs import CGROUP_HOOKS
from tests.adversarial.field import ScopedDaemon
from tests.lab.lab import Lab
from tests.lab.switch import end_of_cable, programs_on

from .conftest import Extent
from .foreign import Firewall, Shaper
from .instances import Instances, policy, take
from .stream import Settings
from .traffic import FarEnds, Traffic


def test_other_programs_at_a_control_group(
    lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent
) -> None:
    """They come before and behind, at the group and above it, and go again, also while we are away."""
    first = Firewall(scope)
    daemon = instances.start()
    with Traffic(lab, ends, scope) as traffic:
        for _ in range(extent.of(1, 10)):
            behind, above = Firewall(scope), Firewall(scope.parent)
            first.detach()
            assert take(daemon, policy(others=True))["event"] == "reloaded"
            between = Firewall(scope)
            instances.kill()
            behind.detach()
            first = Firewall(scope)
            daemon = instances.start()
            between.detach()
            above.detach()
        assert {hook: len(found) for hook, found in ours_attached(scope).items()} == dict.fromkeys(
            CGROUP_HOOKS, 1
        )
        assert others_attached(scope) == ["sd_fw"] * 4
        traffic.finish().assert_right()
    instances.end()
    assert others_attached(scope) == ["sd_fw"] * 4  # theirs are theirs
    first.detach()


@pytest.mark.long
def test_other_filters_at_a_device(lab: Lab, ends: FarEnds, at_switch: Instances, extent: Extent) -> None:
    """Before us and beside us; and the whole qdisc is taken away, which tcx does not mind.

    The kernel stops the device for that (dev_deactivate in net/sched/sch_generic.c), and loses what is on its
    way without anybody's program.
    """
    device = end_of_cable(lab)
    shaper = Shaper(device)
    daemon = at_switch.start()
    settings = Settings(errors=(errno.ECONNREFUSED,), datagrams=False, lossy=True)
    with Traffic(lab, ends, None, settings) as traffic:
        for _ in range(extent.of(1, 10)):
            shaper.remove()
            time.sleep(0.3)
            shaper = Shaper(device)
            assert take(daemon, policy(others=True))["event"] == "reloaded"
            at_switch.kill()
            shaper.remove()
            shaper = Shaper(device)
            daemon = at_switch.start()
        assert len(programs_on(lab)) == 2
        traffic.finish().assert_right()
    at_switch.end()
    shaper.remove()


@pytest.mark.long
def test_second_copy(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent) -> None:
    """Refused while the first one lives, and in its place when that is killed."""
    instances.start()
    with Traffic(lab, ends, scope) as traffic:
        for _ in range(extent.of(1, 20)):
            second = ScopedDaemon(lab, policy(), [], [scope])
            with pytest.raises(RuntimeError, match="already governed by another instance"):
                second.__enter__()
            assert second.signal(0) == os.EX_TEMPFAIL
        instances.kill()
        instances.start()
        traffic.finish().assert_right()

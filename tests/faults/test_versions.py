"""An upgrade and a downgrade, between versions that do not understand what the other one leaves."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from ram_ebpf.dataplane.cgroups import ours_attached
from ram_ebpf.dataplane.programs import CGROUP_HOOKS
from tests.adversarial.field import ScopedDaemon
from tests.lab.lab import Lab

from . import versions
from .conftest import Extent
from .instances import Instances, policy
from .stream import Settings
from .traffic import FarEnds, Traffic
from .versions import Change, Version


def _assert_alone(scope: Path) -> None:
    """Each hook has one program: of whoever came last."""
    assert {hook: len(found) for hook, found in ours_attached(scope).items()} == dict.fromkeys(
        CGROUP_HOOKS, 1
    )


def _swap(instances: Instances, version: Version | None, text: str | None = None) -> None:
    """From one that is killed to another version; None: this one."""
    instances.kill()
    time.sleep(0.3)
    if version is None:
        daemon = instances.start(text)
    else:
        daemon = instances.start(text, version.options, version.command)
    assert "replaced" in {line["event"] for line in daemon.lines()}
    assert "not-inherited" in {line["event"] for line in daemon.lines()}
    time.sleep(0.5)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(versions.CONNECTION, id="connection"),
        pytest.param(versions.CONFIG, id="config", marks=pytest.mark.long),
        pytest.param(versions.OPENING, id="opening", marks=pytest.mark.long),
        pytest.param(versions.STAGE, id="stage", marks=pytest.mark.long),
    ],
)
def test_upgrade_and_back(
    lab: Lab,
    ends: FarEnds,
    scope: Path,
    instances: Instances,
    extent: Extent,
    tmp_path: Path,
    change: Change,
) -> None:
    """What one version has learned is nothing to the other, so both learn for a while before one goes.

    Open connections go on, whatever their name: so no wrong ones are among them."""
    other = versions.make(tmp_path, change)
    instances.start()
    with Traffic(lab, ends, scope, Settings(misnamed=False)) as traffic:
        time.sleep(0.5)
        for _ in range(extent.of(1, 5)):
            for version in (other, None):
                _swap(instances, version)
                _assert_alone(scope)
        traffic.finish().assert_right()


@pytest.mark.long
def test_earlier_connections_are_cut(
    lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent, tmp_path: Path
) -> None:
    """Whether their name is a wrong one is not known, so none goes on."""
    other = versions.make(tmp_path, versions.CONNECTION)
    text = policy(more="connections: { earlier: cut }\n")
    instances.start(text)
    with Traffic(lab, ends, scope, Settings(kept=False)) as traffic:
        for _ in range(extent.of(1, 5)):
            for version in (other, None):
                _swap(instances, version, text)
        traffic.finish().assert_enforced(10)


@pytest.mark.long
def test_both_at_once(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, tmp_path: Path) -> None:
    """Another version is another instance: it gets nothing of one that lives, stopped or not."""
    other = versions.make(tmp_path, versions.CONFIG)
    first = instances.start()
    with Traffic(lab, ends, scope) as traffic:
        for stopped in (False, True):
            if stopped:
                first.signal_only(signal.SIGSTOP)
            second = ScopedDaemon(lab, policy(), other.options, [scope], other.command)
            with pytest.raises(RuntimeError, match="already governed by another instance"):
                second.__enter__()
        first.signal_only(signal.SIGCONT)
        _assert_alone(scope)
        traffic.finish().assert_right()

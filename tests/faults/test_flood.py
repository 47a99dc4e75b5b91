"""Refusals without end: the log and the memory stay as they are."""

from __future__ import annotations

import time
from pathlib import Path

from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon
from tests.lab import topology
from tests.lab.lab import Lab

from .conftest import Extent
from .instances import Instances
from .memory import measure
from .traffic import PORT, FarEnds, Traffic

_LINES_A_SECOND = 30  # about what is refused of two floods, and of the stream
_GROWTH = 4 << 20


def _denied(daemon: ScopedDaemon) -> int:
    """Lines of the log about refusals, so far."""
    return sum(line["event"] == "denied" for line in daemon.lines())


def test_refusals(
    lab: Lab, ends: FarEnds, scope: Path, instances: Instances, tmp_path: Path, extent: Extent
) -> None:
    """Of connections and of datagrams; nothing of either comes to the target."""
    daemon = instances.start()
    done = tmp_path / "done"
    wanted = extent.of(10_000, 1_000_000)
    with Traffic(lab, ends, scope) as traffic:
        with Actor(lab.client, scope) as connecting, Actor(lab.client, scope) as sending:
            refused, rounds = 0, 0
            while refused < wanted or rounds < 3:
                done.unlink(missing_ok=True)
                if rounds == 1:  # what is remembered of refusals has its fill
                    before, lines, started = measure(daemon.pid), _denied(daemon), time.monotonic()
                connecting.start("hammer", topology.BLOCKED, PORT, str(done))
                sending.start("batter", topology.BLOCKED, PORT, str(done))
                time.sleep(extent.of(2.0, 30.0))
                done.touch()
                outcomes = connecting.finish()
                assert set(outcomes) == {"EPERM"}, outcomes
                refused, rounds = refused + outcomes["EPERM"], rounds + 1
                assert sending.finish() > 0
            seconds = time.monotonic() - started
        time.sleep(1.0)
        after, said = measure(daemon.pid), _denied(daemon) - lines
        traffic.finish().assert_right()
    assert said < _LINES_A_SECOND * seconds, (said, seconds)
    assert after.resident < before.resident + _GROWTH, (str(before), str(after))
    assert after.bpf <= before.bpf + (1 << 16), (str(before), str(after))

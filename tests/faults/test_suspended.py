"""A daemon that gets no processor for a while, and whose memory is taken away."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.lab.lab import Lab

from .conftest import Extent
from .instances import Instances, policy
from .traffic import FarEnds, Traffic


@pytest.mark.long
def test_stopped(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent) -> None:
    """SIGSTOP, SIGCONT. A resolver's answers are read in the kernel, and what is refused is refused there."""
    daemon = instances.start(policy(responder=True))
    with Traffic(lab, ends, scope) as traffic:
        daemon.signal_only(signal.SIGSTOP)
        time.sleep(extent.of(4.0, 60.0))
        daemon.signal_only(signal.SIGCONT)
        time.sleep(1.0)
        traffic.so_far().assert_right()
        assert [line["event"] for line in daemon.lines()].count("ready") == 1
        time.sleep(0.5)
        traffic.finish().assert_right()

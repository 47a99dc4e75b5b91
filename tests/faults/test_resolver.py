"""The resolver goes, and comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.lab.lab import Lab

from .conftest import Extent
from .instances import Instances
from .traffic import FarEnds, Traffic

_UNRESOLVED = ("gaierror", "TimeoutError")


@pytest.mark.long
def test_gone_and_back(lab: Lab, ends: FarEnds, scope: Path, instances: Instances, extent: Extent) -> None:
    """Who cannot look a name up is not told that it is refused; what is open stays so, over a kill too."""
    instances.start()
    with Traffic(lab, ends, scope) as traffic:
        time.sleep(1.0)
        ends.stop_resolver()
        time.sleep(extent.of(2.0, 60.0))
        instances.kill()
        instances.start()
        time.sleep(extent.of(2.0, 60.0))
        ends.start_resolver()
        report = traffic.finish()
    report.assert_enforced(10)
    assert [why for _, why in report.wrongly_refused if not any(name in why for name in _UNRESOLVED)] == []
    assert [why for _, why in report.wrongly_refused if why.startswith("kept")] == []
    with Traffic(lab, ends, scope) as traffic:
        time.sleep(extent.of(1.0, 5.0))
        traffic.finish().assert_right(5)

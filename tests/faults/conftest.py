"""The lab, the other ends of the stream, and how long a case is to take."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.lab.fixtures import lab, scope
from tests.lab.lab import Lab

from .instances import Instances, at_cgroup, at_device
from .traffic import FarEnds, far_ends

__all__ = ["lab", "scope"]

_Any = TypeVar("_Any")
_LONG_SECONDS = 3600


@dataclass(frozen=True)
class Extent:
    """Of each case: seconds, or minutes with --long."""

    long: bool

    def of(self, short: _Any, long: _Any) -> _Any:
        """The one that is wanted."""
        return long if self.long else short


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what only `make test-faults` has time for, unless it is asked for."""
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    if config.getoption("--long"):
        for item in here:
            item.add_marker(pytest.mark.timeout(_LONG_SECONDS))
        return
    if "long" in config.option.markexpr.split():
        return
    left_out = [item for item in here if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def extent(request: pytest.FixtureRequest) -> Extent:
    """What is wanted now."""
    return Extent(bool(request.config.getoption("--long")))


@pytest.fixture(scope="module")
def ends(lab: Lab) -> Iterator[FarEnds]:
    """The stream's other ends."""
    with far_ends(lab) as found:
        yield found


@pytest.fixture
def instances(lab: Lab, ends: FarEnds, scope: Path) -> Iterator[Instances]:
    """Instances on the test's control group. The last one is ended with the test."""
    with at_cgroup(lab, scope) as found:
        yield found


@pytest.fixture
def at_switch(lab: Lab, ends: FarEnds) -> Iterator[Instances]:
    """Instances on the switch's end of the client's cable."""
    with at_device(lab) as found:
        yield found

"""The lab as a fixture, and what many tests start with. A conftest makes them available by importing them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor

from .lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """One lab for all tests of a session. A test that changes records uses names of its own."""
    if os.geteuid() != 0:
        # Not a skip: a run that has tested nothing must not look like one that has passed.
        pytest.fail("the lab needs root: run `sudo .venv/bin/pytest`, or leave it out with -m 'not root'")
    with Lab() as result:
        yield result


@pytest.fixture
def scope(lab: Lab, request: pytest.FixtureRequest) -> Path:
    """A control group of each test's own, as what one leaves behind must not govern the next."""
    return lab.new_cgroup(re.sub(r"\W+", "-", f"{request.module.__name__}-{request.node.name}"))


@pytest.fixture
def inside(lab: Lab, scope: Path) -> Iterator[Actor]:
    """A client in there."""
    with Actor(lab.client, scope) as result:
        yield result

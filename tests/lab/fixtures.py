"""The lab as a fixture; `from tests.lab.fixtures import lab` in a conftest makes it available there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from .lab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """One lab for all tests of a session. A test that changes records uses names of its own."""
    if os.geteuid() != 0:
        # Not a skip: a run that has tested nothing must not look like one that has passed.
        pytest.fail("the lab needs root: run `sudo .venv/bin/pytest`, or leave it out with -m 'not root'")
    with Lab() as result:
        yield result

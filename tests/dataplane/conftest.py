"""Gives each module of this folder a loaded plane for the policy that the module states."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .support import Bench, rules_of


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The plane for REGISTRIES of the module."""
    bench = Bench(rules_of(request.module.REGISTRIES))
    with bench.plane:
        yield bench


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    """The module's plane, with nothing left of other tests."""
    loaded.reset()
    return loaded

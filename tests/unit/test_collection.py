"""When Python looks for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from ram_ebpf.collection import building_for_good


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_inside_nor_what_was_made_there() -> None:
    assert gc.isenabled()
    before = gc.get_freeze_count()
    with building_for_good():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]  # type: list[list[int]]
    assert gc.isenabled()
    assert gc.get_freeze_count() > before + 1000
    assert len(made) == 1000


def test_after_an_error_it_goes_on() -> None:
    with pytest.raises(ValueError, match="policy"), building_for_good():
        raise ValueError("policy")
    assert gc.isenabled()


def test_who_has_switched_it_off_finds_it_so() -> None:
    gc.disable()
    with building_for_good():
        pass
    assert not gc.isenabled()

"""A reload, as far as it goes without a policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ram_ebpf.daemon.reloading import Outcome, Prepared, Reloading


@pytest.fixture
def no_thread() -> Iterator[None]:
    """None can be started: there is no address space that is large enough for its stack."""
    before = threading.stack_size(1 << 50)
    yield
    threading.stack_size(before)


def prepare() -> Prepared:
    raise ValueError("it was tried")


def outcome(reloading: Reloading) -> Outcome:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = reloading.follow()
        if found is not None:
            reloading.conclude(found.problem)
            return found
        time.sleep(0.01)
    raise AssertionError("it does not end")


def test_a_reload_for_which_there_is_no_thread(no_thread: None) -> None:
    """It fails as one with a wrong policy does, and the next one is tried as if nothing had been."""
    reloading = Reloading(None, prepare)
    number = reloading.hurry()
    assert outcome(reloading).problem.startswith("can't start new thread: see whether there is enough memory")
    assert reloading.finished == number
    threading.stack_size(0)
    reloading.hurry()
    assert outcome(reloading).problem == "it was tried"

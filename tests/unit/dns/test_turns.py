"""Whose question comes next."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.dns.turns import Turns


def take_all(turns: Turns[str]) -> list[str]:
    found = []
    while (taken := turns.take()) is not None:
        turns.finish(taken[0])
        found.append(taken[1])
    return found


def test_empty() -> None:
    assert Turns[str](10, 10).take() is None


def test_one_asker_in_order() -> None:
    turns = Turns[str](10, 10)
    for item in "abc":
        assert turns.add(1, item)
    assert take_all(turns) == ["a", "b", "c"]


def test_askers_take_turns() -> None:
    turns = Turns[str](1000, 10)
    for number in range(100):
        turns.add(1, f"many {number}")
    turns.add(2, "one")
    turns.add(3, "two")
    turns.add(3, "three")
    assert take_all(turns)[:5] == ["many 0", "one", "two", "many 1", "three"]


def test_room() -> None:
    turns = Turns[str](2, 2)
    assert [turns.add(1, item) for item in "abc"] == [True, True, False]
    assert turns.add(2, "d")
    taken = turns.take()
    assert taken == (1, "a")
    assert not turns.add(1, "c")  # what is under way takes room too
    turns.finish(1)
    assert turns.add(1, "c")


def test_a_few_at_once() -> None:
    turns = Turns[str](10, 2)
    for item in "abc":
        turns.add(1, item)
    assert [turns.take(), turns.take(), turns.take()] == [(1, "a"), (1, "b"), None]
    turns.add(2, "d")
    assert turns.take() == (2, "d")
    turns.finish(1)
    assert turns.take() == (1, "c")


def test_drain() -> None:
    turns = Turns[str](10, 1)
    for asker, item in ((1, "a"), (1, "b"), (2, "c")):
        turns.add(asker, item)
    assert turns.take() == (1, "a")
    assert sorted(turns.drain()) == ["b", "c"]
    assert turns.take() is None
    turns.finish(1)


def test_askers_that_have_nothing_left_are_forgotten() -> None:
    turns = Turns[str](10, 1)
    for asker in range(1000):
        turns.add(asker, "a")
        taken = turns.take()
        assert taken is not None
        turns.finish(taken[0])
    assert not turns._askers


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=200))
def test_nothing_is_lost_and_nobody_starves(steps: list[tuple[int, int]]) -> None:
    """Any order of adding, taking and finishing."""
    turns = Turns[int](20, 3)
    added: dict[int, list[int]] = {asker: [] for asker in range(4)}
    taken: dict[int, list[int]] = {asker: [] for asker in range(4)}
    under_way: list[int] = []
    for number, (asker, what) in enumerate(steps):
        if what < 2:
            if turns.add(asker, number):
                added[asker].append(number)
        elif what == 2:
            found = turns.take()
            if found is not None:
                taken[found[0]].append(found[1])
                under_way.append(found[0])
        elif under_way:
            turns.finish(under_way.pop())
        assert all(under_way.count(item) <= 3 for item in under_way)
    for one in under_way:
        turns.finish(one)
    while (found := turns.take()) is not None:
        taken[found[0]].append(found[1])
        turns.finish(found[0])
    assert taken == added
    assert not turns._askers


def test_many_threads() -> None:
    turns = Turns[int](10_000, 4)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda asker=asker: [turns.add(asker, n) for n in range(500)])
        for asker in range(4)
    ]
    for thread in threads:
        thread.start()
    while len(found) < 2000:
        taken = turns.take()
        if taken is not None:
            found.append(taken[1])
            turns.finish(taken[0])
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(list(range(500)) * 4)

"""The hash of names: the quick formula gives what the kernel's steps give."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.dataplane.abi import CLASS_SEP, HASH_LANES
from ram_ebpf.dataplane.namehash import PRIME, NameHasher, draw_multipliers
from ram_ebpf.policy.classes import class_of

MULTIPLIERS = (2, 48271, 2**30 + 7, PRIME - 1)
# The one that makes the sum of a name "a" (symbols 2 and 40) 0 modulo the prime.
ZERO = -20 % PRIME


def symbols(labels: Sequence[str]) -> Iterator[int]:
    """As the kernel reads a name: backwards, each label followed by what starts it."""
    for label in reversed(labels):
        yield from (class_of(byte) for byte in reversed(label.encode("ascii")))
        yield CLASS_SEP


def step(value: int, multiplier: int, symbol: int) -> int:
    """ram_hash_step() of bpf/lib/names.h."""
    value = value * multiplier + symbol + 1
    assert value < 2**64
    value = (value & PRIME) + (value >> 31)
    return (value & PRIME) + (value >> 31)


def stepwise(multipliers: Sequence[int], labels: Sequence[str]) -> bytes:
    lanes = []
    for multiplier in multipliers:
        value = 0
        for symbol in symbols(labels):
            value = step(value, multiplier, symbol)
            assert 0 < value <= PRIME  # what the kernel keeps in 32 bits, and never 0
        lanes.append(value)
    return struct.pack("=4I", *lanes)


label = st.text("abcxyz0189-_ABCXYZ", min_size=1, max_size=63)
any_labels = st.lists(label, max_size=8).map(tuple)
multiplier = st.sampled_from((2, 3, ZERO, PRIME - 2, PRIME - 1)) | st.integers(2, PRIME - 1)


@given(any_labels, st.tuples(*[multiplier] * HASH_LANES))
def test_formula_gives_what_the_steps_give(labels: tuple[str, ...], multipliers: tuple[int, ...]) -> None:
    assert NameHasher(multipliers).key(labels) == stepwise(multipliers, labels)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param((), id="no label"),
        pytest.param(("a",), id="one letter"),
        pytest.param(("z",) * 127, id="the most labels"),
        pytest.param(("a" * 63, "b" * 63, "c" * 63, "d" * 61), id="the longest name"),
        pytest.param(("registry-1", "docker", "io"), id="an ordinary name"),
    ],
)
def test_extremes(labels: tuple[str, ...]) -> None:
    for multipliers in (MULTIPLIERS, draw_multipliers()):
        assert NameHasher(multipliers).key(labels) == stepwise(multipliers, labels)


def test_sum_of_0_is_the_prime() -> None:
    hasher = NameHasher((ZERO,) * HASH_LANES)
    assert hasher.key(("a",)) == struct.pack("=I", PRIME) * HASH_LANES
    for labels in (("a",), ("b", "a"), ("a", "a"), ("x", "b", "a")):
        assert hasher.key(labels) == stepwise((ZERO,) * HASH_LANES, labels)


@pytest.mark.parametrize("before", [0, 1, PRIME - 1, PRIME])
@pytest.mark.parametrize("factor", [2, PRIME - 1])
@pytest.mark.parametrize("symbol", [0, CLASS_SEP])
def test_two_foldings_are_enough(before: int, factor: int, symbol: int) -> None:
    result = step(before, factor, symbol)
    assert 0 < result <= PRIME
    assert result % PRIME == (before * factor + symbol + 1) % PRIME


def test_what_was_kept_of_a_parent_changes_nothing() -> None:
    names = [("io",), ("docker", "io"), ("a", "docker", "io"), ("x", "a", "docker", "io"), ("docker", "io")]
    shared = NameHasher(MULTIPLIERS)
    assert [shared.key(name) for name in names] == [NameHasher(MULTIPLIERS).key(name) for name in names]
    assert [shared.key(name) for name in reversed(names)] == [
        NameHasher(MULTIPLIERS).key(name) for name in reversed(names)
    ]


def test_case_is_folded_and_label_ends_count() -> None:
    hasher = NameHasher(MULTIPLIERS)
    assert hasher.key(("DOCKER", "Io")) == hasher.key(("docker", "io"))
    different = [("docker", "io"), ("dockerio",), ("docke", "rio"), ("io", "docker"), ("evildocker", "io")]
    assert len({hasher.key(labels) for labels in different}) == len(different)

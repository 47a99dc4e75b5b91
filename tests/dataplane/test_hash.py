"""The keyed hash by which the kernel finds the names of the policy: see bpf/lib/names.h and namehash.py."""

from __future__ import annotations

import random
import string
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from ram_ebpf.dataplane.abi import CLASS_SEP, HASH_LANES, Config
from ram_ebpf.dataplane.namehash import PRIME, NameHasher, draw_multipliers
from ram_ebpf.policy.classes import class_of

from . import test_decision
from .conftest import Load
from .exchanges import DENIED_NAMES, REGISTRIES, ask
from .messages import labels, wire
from .support import Bench, rules_of

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

_LETTERS = string.ascii_letters + string.digits + "-_"
RULE = 1  # of some other name: a query that has it was found by its hash


@contextmanager
def listed(bench: Bench, key: bytes) -> Iterator[None]:
    """One more literal suffix in the map of names, which has just the room for those of the policy."""
    names, config = bench.map("names"), bench.map("config")
    victim, value = next(names.items())
    names.discard(victim)
    names[key] = struct.pack("=3I", RULE, 0, 0)
    ((first, before),) = config.items()
    altered = Config.from_buffer_copy(before)
    altered.suffix_depths = 2**32 - 1  # of any number of labels
    config[first] = bytes(altered)
    try:
        yield
    finally:
        config[first] = before
        names.discard(key)
        names[victim] = value


def finds(bench: Bench, name: str | bytes) -> bool:
    """Whether a query for the name is taken for one of a listed name."""
    bench.reset()
    assert bench.egress(ask(name).frame())
    listed_ones, others = bench.queries(), bench.queries("unlisted")
    assert len(listed_ones) + len(others) == 1
    return bool(listed_ones)


def shapes(pick: random.Random) -> Iterator[tuple[str, ...]]:
    """Names of many shapes, as labels."""

    def label(length: int) -> str:
        return "".join(pick.choices(_LETTERS, k=length))

    yield ("a",)
    yield (label(63),)
    yield (label(63), label(63), label(63), label(61))
    yield tuple(label(1) for _ in range(127))
    yield ("a",) * 127
    yield ("aaa",) * 63
    yield tuple(label(1 + n % 3) for n in range(80))
    for _ in range(200):
        parts: list[str] = []
        room = pick.randint(2, 254)
        while room > 1 and len(parts) < 127:
            length = min(pick.choice((1, 2, 3, 8, 20, 63)), room - 1)
            parts.append(label(length))
            room -= length + 1
        yield tuple(parts)


@pytest.mark.heavy
def test_kernel_and_user_space_agree(bench: Bench) -> None:
    hasher = NameHasher(bench.plane.tables.multipliers)
    for parts in shapes(random.Random(4)):  # the same names each time
        name = labels(*(part.encode() for part in parts))
        assert not finds(bench, name), parts
        with listed(bench, hasher.key(parts)):
            assert finds(bench, name), parts


@pytest.mark.parametrize("lane", range(HASH_LANES))
def test_every_lane_counts(bench: Bench, lane: int) -> None:
    key = bytearray(NameHasher(bench.plane.tables.multipliers).key(("some", "name", "test")))
    key[4 * lane] ^= 1
    with listed(bench, bytes(key)):
        assert not finds(bench, "some.name.test")


def test_sum_that_is_the_prime_itself(bench: Bench) -> None:
    """A sum of 0 modulo the prime stays the prime in the kernel; no name would meet that by chance."""
    # One label "a" is hashed as the two symbols 2 and 40: 2 * k + 40 is 0 for this k.
    multiplier = -20 % PRIME
    config = bench.map("config")
    ((key, before),) = config.items()
    altered = Config.from_buffer_copy(before)
    altered.multiplier[:] = [multiplier] * HASH_LANES
    hasher = NameHasher((multiplier,) * HASH_LANES)
    assert hasher.key(("a",)) == struct.pack("=I", PRIME) * HASH_LANES
    config[key] = bytes(altered)
    try:
        for parts in (("a",), ("b", "a")):
            with listed(bench, hasher.key(parts)):
                assert finds(bench, labels(*(part.encode() for part in parts)))
    finally:
        config[key] = before


def test_secrets_are_drawn_anew_at_each_start() -> None:
    """Whoever finds two names that collide has found them for one start of one host only."""
    drawn = [draw_multipliers() for _ in range(100)]
    assert len({multiplier for lanes in drawn for multiplier in lanes}) == 400
    assert all(1 < multiplier < PRIME for lanes in drawn for multiplier in lanes)


def test_planes_have_secrets_of_their_own(load: Load) -> None:
    benches = [load(REGISTRIES, DENIED_NAMES, None), load(test_decision.REGISTRIES, "", None)]
    first, second = (Config.from_buffer_copy(bench.map("config")[bytes(4)]) for bench in benches)
    for bench, config in zip(benches, (first, second), strict=True):
        assert tuple(config.multiplier) == bench.plane.tables.multipliers
    assert set(first.multiplier).isdisjoint(second.multiplier)
    assert set(first.identity_key).isdisjoint(second.identity_key)
    assert all(secret > 2**32 for config in (first, second) for secret in config.identity_key)


@pytest.mark.heavy
def test_20_000_names_have_keys_of_their_own() -> None:
    pick = random.Random(5)
    names = {
        tuple(
            "".join(pick.choices(string.ascii_lowercase + string.digits, k=pick.randint(1, 8)))
            for _ in range(pick.randint(1, 5))
        )
        for _ in range(20_000)
    }
    hasher = NameHasher(draw_multipliers())
    assert len({hasher.key(name) for name in names}) == len(names)
    # Nor does it matter only which characters there are, but also where the labels end.
    assert hasher.key(("ab", "c")) != hasher.key(("a", "bc")) != hasher.key(("abc",))


# A secret that is none: all lanes the same, and known.
KNOWN = 31


def plain_hash(name: str) -> int:
    """One lane of the hash of a name under the known multiplier."""
    value = 0
    for label in reversed(name.split(".")):
        for symbol in (*map(class_of, reversed(label.encode())), CLASS_SEP):
            value = (value * KNOWN + symbol + 1) % PRIME
    return value


def collisions(count: int) -> Sequence[tuple[str, str]]:
    """Pairs of names with one hash, by the birthday paradox: the second of about 2^16 random names."""
    pick = random.Random(6)  # the same pairs each time
    seen: dict[int, str] = {}
    found: list[tuple[str, str]] = []
    while len(found) < count:
        name = "".join(pick.choices(string.ascii_lowercase, k=10)) + ".test"
        other = seen.setdefault(plain_hash(name), name)
        if other != name:
            found.append((other, name))
    return found


@pytest.fixture(scope="module")
def pairs() -> Sequence[tuple[str, str]]:
    return collisions(5)


@pytest.fixture(scope="module")
def guessed(pairs: Sequence[tuple[str, str]]) -> Iterator[Bench]:
    """A plane whose secret an attacker knows, and whose policy has one name of each pair."""
    hosts = "".join(f"  - host: {name}\n" for name, _ in pairs)
    bench = Bench(rules_of(hosts), multipliers=(KNOWN,) * HASH_LANES)
    with bench.plane:
        yield bench


@pytest.mark.heavy
def test_known_secret_fools_the_kernel(guessed: Bench, pairs: Sequence[tuple[str, str]]) -> None:
    """The test of the next test: these pairs do collide for whoever has only the hash to go by."""
    for name, other in pairs:
        assert guessed.plane.tables.rules.match(other) is None
        assert finds(guessed, name)
        assert finds(guessed, other)
        (query,) = guessed.queries()
        assert guessed.pattern_of(query.rule) == name
    assert not finds(guessed, "unrelated.test")


@pytest.mark.heavy
def test_drawn_secret_does_not(bench: Bench, pairs: Sequence[tuple[str, str]]) -> None:
    hasher = NameHasher(bench.plane.tables.multipliers)
    for name, other in pairs:
        with listed(bench, hasher.key(name.split("."))):
            assert finds(bench, name)
            assert not finds(bench, other)
    for _ in range(200):
        drawn = NameHasher(draw_multipliers())
        assert all(drawn.key(name.split(".")) != drawn.key(other.split(".")) for name, other in pairs)


@pytest.mark.heavy
def test_identity_of_colliding_names_differs(guessed: Bench, pairs: Sequence[tuple[str, str]]) -> None:
    """Whether a reply is about the name asked for does not depend on the hash of the rules."""
    for name, other in pairs:
        guessed.reset()
        identities = set()
        for asked in (wire(name), wire(other)):
            guessed.egress(ask(asked).frame())
            identities |= {query.identity for query in guessed.queries()}
        assert len(identities) == 2

"""A policy of 100 000 names, and the keyed hash by which the kernel finds its names."""

from __future__ import annotations

import random
import string
import struct
from collections.abc import Iterator

import pytest

from ram_ebpf.dataplane.abi import HASH_LANES, Config, Reason
from ram_ebpf.dataplane.namehash import PRIME, NameHasher, draw_multipliers
from ram_ebpf.policy.names import HostPattern
from ram_ebpf.policy.rules import NameRule, RuleSet

from .messages import A, Query, labels, message, question, wire
from .support import Bench

RULES = 100_000
_LETTERS = string.ascii_letters + string.digits + "-_"


def patterns() -> Iterator[str]:
    """Patterns of every kind, under domains that they share."""
    globs = 100
    for number in range(RULES - globs):
        domain = f"team{number % 1000}.example"
        kind = number % 5
        yield (
            f"*.pool{number}.{domain}"
            if kind == 0
            else f"**.tree{number}.{domain}"
            if kind == 1
            else f"registry{number}.{domain}"
        )
    for number in range(globs):
        yield f"node-*-{number}.*.team{number}.example"


pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def large() -> Iterator[Bench]:
    # Past the YAML, which has tests of its own and would take longest here.
    parsed = sorted(map(HostPattern.parse, patterns()), key=lambda pattern: pattern.specificity)
    names = tuple(
        NameRule(pattern, ports=(443,), origin="policy.yaml:1", shared=False, private=False, rank=rank)
        for rank, pattern in enumerate(parsed, start=1)
    )
    bench = Bench(RuleSet(names, ()))
    with bench.plane:
        yield bench


def asked(bench: Bench, name: bytes) -> Query:
    """Sends a query for the name in wire form and returns it."""
    query = Query(message(question(name, A)), (Reason.ALLOWED_RESOLVER,))
    assert bench.egress(query.packet())
    return query


def test_every_kind_of_pattern_is_found_among_very_many(large: Bench) -> None:
    assert len(large.plane.tables.rules.names) == RULES
    pick = random.Random(3)  # the same names each time
    names = ["", "example", "team7.example", "node-x-7.a.team7.example", "node-x-7.a.team8.example"]
    for pattern in pick.sample(list(patterns()), 60):
        plain = pattern.replace("**", "a.b").replace("*", "c")
        # A name that matches, its child, its parent, and one that only ends in the same characters.
        names += [plain, f"x.{plain}", plain.split(".", 1)[1], f"evil{plain}", plain.upper()]
    expected, found = {}, {}
    for name in names:
        large.reset()
        asked(large, wire(name))
        queries = large.queries()
        found[name] = large.pattern_of(queries[0].rule) if queries else None
        rule = large.plane.tables.rules.match(name)
        expected[name] = rule.pattern.text if rule else None
    assert found == expected
    assert sum(pattern is not None for pattern in found.values()) > 60


def shapes(pick: random.Random) -> Iterator[tuple[str, ...]]:
    """Names of many shapes, as labels."""

    def label(length: int) -> str:
        return "".join(pick.choices(_LETTERS, k=length))

    yield ()
    yield ("a",)
    yield (label(63),)
    yield (label(63), label(63), label(63), label(61))
    yield tuple(label(1) for _ in range(127))
    yield ("a",) * 127
    yield ("aaa",) * 63
    yield tuple(label(1 + n % 3) for n in range(80))
    # Octets that no host name has are hashed too, as one class; a dot is one of them.
    yield ("a.b", "c d", "\0", "\x7f!")
    for _ in range(200):
        parts: list[str] = []
        room = pick.randint(1, 254)
        while room > 1 and len(parts) < 127:
            length = min(pick.choice((1, 2, 3, 8, 20, 63)), room - 1)
            parts.append(label(length))
            room -= length + 1
        yield tuple(parts) or ("x",)


def test_kernel_and_user_space_agree_on_the_hash(large: Bench) -> None:
    hasher = NameHasher(large.plane.tables.multipliers)
    for parts in shapes(random.Random(4)):
        large.reset()
        asked(large, labels(*(part.encode() for part in parts)))
        (query,) = large.queries() + large.queries("unlisted")
        assert bytes(query.hash) == hasher.key(parts), parts


def test_name_that_fills_the_hash_with_the_prime_itself(large: Bench) -> None:
    """A sum of 0 modulo the prime stays the prime in the kernel; no name would meet that by chance."""
    # One label "a" is hashed as the two symbols 2 and 40: 2 * k + 40 is 0 for this k.
    multiplier = -20 % PRIME
    config = large.plane.maps["config"]
    ((key, before),) = config.items()
    altered = Config.from_buffer_copy(before)
    altered.multiplier[:] = [multiplier] * HASH_LANES
    config[key] = bytes(altered)
    try:
        large.reset()
        asked(large, labels(b"b", b"a"))
        (query,) = large.queries("unlisted")
    finally:
        config[key] = before
    hasher = NameHasher((multiplier,) * HASH_LANES)
    assert hasher.key(("a",)) == struct.pack("=I", PRIME) * HASH_LANES
    assert bytes(query.hash) == hasher.key(("b", "a"))


def test_multipliers_are_drawn_anew_at_each_start() -> None:
    """Whoever finds two names that collide has found them for one start of one host only."""
    drawn = [draw_multipliers() for _ in range(100)]
    assert len({multiplier for lanes in drawn for multiplier in lanes}) == 400
    assert all(1 < multiplier < PRIME for lanes in drawn for multiplier in lanes)


def test_planes_have_secrets_of_their_own(large: Bench) -> None:
    other = Bench(RuleSet((), ()))
    with other.plane:
        assert set(other.plane.tables.multipliers).isdisjoint(large.plane.tables.multipliers)
        hashes = []
        for bench in (large, other):
            bench.reset()
            asked(bench, wire("some.name.test"))
            (query,) = bench.queries("unlisted")
            hashes.append(bytes(query.hash))
    assert hashes[0] != hashes[1]


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

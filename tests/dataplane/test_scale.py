"""A policy of 100 000 names."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from ram_ebpf.policy.names import HostPattern
from ram_ebpf.policy.rules import NameRule, RuleSet

from .exchanges import ask
from .support import Bench

RULES = 100_000


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
        assert large.egress(ask(name).frame())
        queries = large.queries()
        found[name] = large.pattern_of(queries[0].rule) if queries else None
        rule = large.plane.tables.rules.match(name)
        expected[name] = rule.pattern.text if rule else None
    assert found == expected
    assert sum(pattern is not None for pattern in found.values()) > 60

"""Suffixes are only looked up where the policy has some of so many labels: none may be passed over."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.rules import NameRule

from .exchanges import ONE, ask, play, tell
from .messages import address
from .support import Bench

COUNTS = (1, 2, 5, 29, 30, 31, 32, 33, 64, 126, 127)


def _name(count: int) -> str:
    """So many labels, and no longer than a name may be."""
    return ".".join([chr(ord("a") + COUNTS.index(count))] * count)


EXACT = [_name(count) for count in COUNTS if count > 1]
# A pattern has no more characters than a name.
DEEP = [_name(count) for count in COUNTS if count < 126]
REGISTRIES = "".join(f"  - host: {name}\n" for name in EXACT) + "".join(
    f'  - host: "**.{name}"\n    ports: [5000]\n' for name in DEEP
)


def opened(bench: Bench) -> set[tuple[str, int, str]]:
    """Address, port and pattern of what is open."""
    found = set()
    for (where, port), (_, number) in bench.learned().items():
        rule = bench.plane.tables.rule(number)
        assert isinstance(rule, NameRule)
        found.add((where, port, rule.pattern.text))
    return found


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{name.count('.') + 1} labels") for name in EXACT])
def test_exact_names(bench: Bench, name: str) -> None:
    play(bench, ask(name), tell(address(ONE), name=name))
    assert opened(bench) == {(ONE, 443, name)}


@pytest.mark.parametrize("name", [pytest.param(name, id=f"{name.count('.') + 1} labels") for name in DEEP])
def test_wildcards(bench: Bench, name: str) -> None:
    play(bench, ask(f"x.{name}"), tell(address(ONE), name=f"x.{name}"))
    assert opened(bench) == {(ONE, 5000, f"**.{name}")}

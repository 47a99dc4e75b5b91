"""Paired measurements: all candidates take turns in a round, and only figures of one round are compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
Rounds = Sequence[Mapping[str, float]]  # what each candidate gave


@dataclass(frozen=True)
class Estimate:
    """A median with the interval in which the true one lies with 95 % confidence, and how many it is of."""

    median: float
    low: float
    high: float
    count: int


def estimate(values: Iterable[float]) -> Estimate:
    """By order statistics: half of all values lie below the true median, whatever their distribution."""
    ordered = sorted(values)
    count = len(ordered)
    # The normal approximation of the binomial distribution. With few values it is the whole range.
    reach = max(0, math.floor(count / 2 - 1.96 * math.sqrt(count) / 2))
    return Estimate(statistics.median(ordered), ordered[reach], ordered[count - 1 - reach], count)


def ratios(rounds: Rounds, over: str, under: str) -> Estimate:
    """How often the second candidate's figure goes into the first one's."""
    return estimate(one[over] / one[under] for one in rounds)


def middle(rounds: Rounds) -> dict[str, float]:
    """Each candidate's median."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def typical(values: Sequence[float]) -> float:
    """The mean of the middle half: as steady as a median, and finer than the clock that was read."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return statistics.fmean(ordered[quarter : len(ordered) - quarter])


def take_turns(turns: Mapping[str, Callable[[], T]], rounds: int) -> list[dict[str, T]]:
    """Has each candidate measured once a round, in an order that changes from round to round.

    One round that is not counted comes first, in which caches fill and clocks speed up.
    """
    names = list(turns)
    result = []
    for number in range(rounds + 1):
        shift = number % len(names)
        order = names[shift:] + names[:shift]
        if number % 2:
            order.reverse()
        taken = {name: turns[name]() for name in order}
        if number:
            result.append({name: taken[name] for name in names})
    return result

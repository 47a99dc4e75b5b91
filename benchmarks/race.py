"""The race: fresh names, each resolved and connected to at once, through ours, nftset and nothing.

    python -m benchmarks.race [--quick]

tests/lab/test_race.py asserts that ours refuses none of 100 000; here the question is what that costs.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

from benchmarks import report
from benchmarks.designs import NFTSET, NONE, OURS, Designs
from benchmarks.measure import estimate, middle, ratios, take_turns
from benchmarks.report import Aim, Figure, Part
from tests.lab.race import Outcome

_ROUNDS, _CYCLES = 9, 3000
_ROUNDS_QUICK, _CYCLES_QUICK = 1, 500
_THREADS = 4


def measure(quick: bool) -> Part:
    """Half of the cycles open a TCP connection, half send a datagram."""
    rounds, cycles = (_ROUNDS_QUICK, _CYCLES_QUICK) if quick else (_ROUNDS, _CYCLES)
    with Designs() as designs:

        def turn(design: str) -> Outcome:
            with designs.turn(design):
                return designs.race.run(
                    cycles,
                    threads=_THREADS,
                    cgroup=designs.cgroup(design),
                    resolver=designs.resolver(design),
                )

        taken = take_turns({design: partial(turn, design) for design in (NONE, OURS, NFTSET)}, rounds)
    speeds = [{name: outcome.per_second for name, outcome in one.items()} for one in taken]
    # Whoever is refused by nftables' drop is not told so: its TCP connection hangs, and counts as failed.
    missed = {
        design: sum(one[design].refused + one[design].failed for one in taken)
        for design in (NONE, OURS, NFTSET)
    }
    share = estimate([missed[OURS] / (rounds * cycles)])
    return Part(
        f"race: resolve a fresh name, connect at once, {rounds * cycles} cycles each",
        [
            Figure("cycles per second, ours / none", ratios(speeds, OURS, NONE), middle(speeds), "/s"),
            Figure("cycles per second, ours / nftset", ratios(speeds, OURS, NFTSET), middle(speeds), "/s"),
            Figure(
                "share of cycles that did not get through, ours",
                share,
                {name: float(count) for name, count in missed.items()},
                "cycles",
                Aim(0, share),
            ),
        ],
        details={"rounds": [{name: asdict(outcome) for name, outcome in one.items()} for one in taken]},
    )


if __name__ == "__main__":
    raise SystemExit(report.run({"race": measure}))

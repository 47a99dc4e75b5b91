"""What a lookup takes: dnsperf through nothing, ours, and dnsmasq that fills an nftables set.

    python -m benchmarks.dns [--quick]

Latency is measured at a rate at which queries do not wait for each other. (dnsperf's own way to ask one at a
time, -q 1, leaves it asleep for up to 100 ms between queries in version 2.10.) Every query is for a name that
nobody has asked for before, so no cache answers.
"""

from __future__ import annotations

import re
import statistics
from functools import partial
from pathlib import Path

from benchmarks import report
from benchmarks.designs import KERNEL, NFTSET, NONE, OURS, Designs
from benchmarks.measure import middle, ratios, take_turns, typical
from benchmarks.report import Aim, Figure, Part
from tests.lab.race import DOMAIN, UNLISTED

_AIM = 1.03  # latency through ours, with nothing as 1
_RATE = 1000  # queries per second
_LATENCY_ROUNDS, _LATENCY_SECONDS = 24, 0.25
_LOAD_ROUNDS, _LOAD_SECONDS = 7, 0.4
_LOAD_NAMES = 30_000
_UNLISTED = "ours, unlisted"

_LINE = re.compile(r"^> NOERROR \S+ A ([\d.]+)", re.MULTILINE)
_PER_SECOND = re.compile(r"Queries per second:\s+([\d.]+)")


class Asker:
    """dnsperf, one client with one socket."""

    def __init__(self, designs: Designs) -> None:
        self._designs = designs

    def latency(self, design: str) -> list[float]:
        """Microseconds that each query took."""
        count = int(_RATE * _LATENCY_SECONDS)
        options = ["-v", "-q", "20", "-Q", str(_RATE), "-n", "1"]
        found = [float(text) * 1e6 for text in _LINE.findall(self._run(design, count, options))]
        if len(found) < 0.9 * count:
            raise RuntimeError(f"{design}: only {len(found)} of {count} queries were answered")
        return found

    def per_second(self, design: str) -> float:
        """Queries per second, with as many under way at once as dnsperf has by default."""
        said = self._run(design, _LOAD_NAMES, ["-q", "100", "-l", str(_LOAD_SECONDS)])
        found = _PER_SECOND.search(said)
        assert found, said
        return float(found[1])

    def _run(self, design: str, count: int, options: list[str]) -> str:
        place = OURS if design == _UNLISTED else design
        names = self._names(count, UNLISTED if design == _UNLISTED else DOMAIN)
        # A query that is lost must not hold up the end for long.
        argv = ["dnsperf", "-c", "1", "-T", "1", "-t", "1", "-d", str(names)]
        argv += ["-s", self._designs.resolver(place), *options]
        with self._designs.turn(place):
            return self._designs.node.run(argv, cgroup=self._designs.cgroup(place)).check().stdout

    def _names(self, count: int, domain: str) -> Path:
        first = self._designs.race.fresh(count)
        path = self._designs.directory / "names"
        path.write_text(
            "".join(f"h{number}.{domain} A\n" for number in range(first, first + count)), encoding="ascii"
        )
        return path


def measure(quick: bool) -> Part:
    """Latency first, then how much goes through."""
    with Designs() as designs:
        asker = Asker(designs)
        candidates = (NONE, OURS, _UNLISTED, KERNEL, NFTSET)
        latencies = take_turns(
            {name: partial(asker.latency, name) for name in candidates}, 2 if quick else _LATENCY_ROUNDS
        )
        speeds = take_turns(
            {name: partial(asker.per_second, name) for name in candidates}, 1 if quick else _LOAD_ROUNDS
        )
    typicals = [{name: typical(taken) for name, taken in one.items()} for one in latencies]
    means = [{name: statistics.fmean(taken) for name, taken in one.items()} for one in latencies]
    part = Part(f"dns: dnsperf, fresh names, latency at {_RATE} queries per second")
    for name, title in (
        (OURS, "latency, listed name, ours / none"),
        (_UNLISTED, "latency, unlisted name, ours / none"),
        (KERNEL, "latency, listed name, ours with daemon stopped / none"),
        (NFTSET, "latency, nftset / none"),
    ):
        ratio = ratios(typicals, name, NONE)
        aim = Aim(_AIM, ratio) if name in (OURS, _UNLISTED) else None
        values = {key: value for key, value in middle(typicals).items() if key in (NONE, name)}
        part.figures.append(Figure(title, ratio, values, "us", aim))
    for name in (OURS, NFTSET):
        values = {key: value for key, value in middle(means).items() if key in (NONE, name)}
        title = f"latency, the mean with all outliers, {name} / none"
        part.figures.append(Figure(title, ratios(means, name, NONE), values, "us"))
    for name in (OURS, _UNLISTED, KERNEL, NFTSET):
        values = {key: value for key, value in middle(speeds).items() if key in (NONE, name)}
        title = f"queries per second at saturation, {name} / none"
        part.figures.append(Figure(title, ratios(speeds, name, NONE), values, "/s"))
    added = statistics.median(one[OURS] - one[NONE] for one in typicals)
    if added > 0:
        part.notes.append(
            f"ours adds {added:.1f} us to a lookup; that is 3 % of one that takes {added / 30:.2f} ms"
        )
    part.details = {"typical_us": typicals, "mean_us": means, "per_second": speeds}
    return part


if __name__ == "__main__":
    raise SystemExit(report.run({"dns": measure}))

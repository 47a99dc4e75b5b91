"""Has real engines be refused in every way, and writes what each prints into docs/refusals.md.

    python -m tests.engines.refusals [--suite SUITE] [--kind KIND]

With options it prints what it finds and leaves the document alone. So it does, and ends with 1, where a
refusal takes 0.3 seconds or more, as far as that is ours, or somebody would read of a timeout. Needs root,
and what tests/engines/prepare.py fetches.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.adversarial.field import eventually
from tests.lab.daemon import Daemon
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import refusal_lines, refusals_document, trees
from .bench import Bench
from .names import Names
from .refusal_clients import Client
from .refusal_kinds import KINDS, Kind
from .refusals_document import Cell, Section

AT_ONCE = 0.3  # seconds since the name was asked for; where it was not, of the whole command
_ATTEMPTS = 5  # a busy machine is no news about us: the quickest counts
LEGEND = f"""\
{refusal_lines.HOST} is the registry's host, {refusal_lines.NAME} is `{refusal_lines.NAME_IS}`, and
{refusal_lines.TEXT} is *{refusal_lines.TEXT_IS}*
ADDRESS is what the name resolves to, RESOLVER the resolver's, CLIENT the client's end of the connection.
Seconds are those of the quickest of up to {_ATTEMPTS} commands, and of that what comes after the first query
for the name, with all that the client tries then."""


class RefusalError(RuntimeError):
    """It was no refusal."""


@dataclass(frozen=True)
class _Attempt:
    output: str
    line: str
    seconds: float
    since_asked: float | None

    @property
    def counts(self) -> float:
        """The seconds that are to be few."""
        return self.seconds if self.since_asked is None else self.since_asked


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines.refusals", description=__doc__)
    parser.add_argument("--suite", choices=trees.SUITES, action="append", help="only this, repeatable")
    parser.add_argument("--kind", choices=[kind.key for kind in KINDS], action="append", help="only this")
    options = parser.parse_args(argv)
    kinds = [kind for kind in KINDS if options.kind is None or kind.key in options.kind]
    problems: list[str] = []
    cells: dict[str, list[Cell]] = {kind.key: [] for kind in kinds}
    with Lab() as lab, tempfile.TemporaryDirectory(prefix="ram-refusals-") as directory:
        names = Names(lab)
        for suite in options.suite or trees.SUITES:
            with Bench(lab, names, Path(directory) / suite, suite) as bench:
                for kind in kinds:
                    for cell in _cells(bench, kind, problems):
                        cells[kind.key].append(cell)
    text = refusals_document.render([_section(kind, cells[kind.key]) for kind in kinds], LEGEND)
    for problem in problems:
        print(f"not as it should be: {problem}", file=sys.stderr)
    if options.suite or options.kind:
        print(text)
    elif not problems:
        path = refusals_document.DOCUMENT
        path.write_text(refusals_document.insert(path.read_text(encoding="utf-8"), text), encoding="utf-8")
        print(f"wrote {path}")
    return 1 if problems else 0


def _section(kind: Kind, cells: Sequence[Cell]) -> Section:
    """With the cells in the order of clients, as suites come one after the other."""
    order = [client.name for client in kind.clients]
    return Section(
        kind.title, kind.about, sorted(cells, key=lambda cell: order.index(cell.client)), kind.note
    )


def _cells(bench: Bench, kind: Kind, problems: list[str]) -> Iterator[Cell]:
    with kind.governed(bench) as daemon:
        for client in kind.clients:
            version = trees.version(bench.suite, client.package)
            where = f"{kind.title}: {client.name} {version}"
            try:
                best = _best(bench, kind, client, daemon)
            except RefusalError as error:
                problems.append(f"{where}: {error}")
                continue
            print(f"{where}: {best.seconds:.2f} s, {best.counts:.2f} s: {best.line}", flush=True)
            if best.counts >= AT_ONCE and client.name not in kind.slow:
                problems.append(f"{where}: takes {best.counts:.2f} s")
            if refusal_lines.speaks_of_a_timeout(best.output):
                problems.append(f"{where}: speaks of a timeout: {best.output}")
            yield Cell(client.name, version, best.line, best.seconds, best.since_asked)


def _best(bench: Bench, kind: Kind, client: Client, daemon: Daemon) -> _Attempt:
    """Of those attempts that it takes to have a quick one. What is allowed works before."""
    allowed = client.act(bench, bench.names.allowed())
    if not allowed.ok:
        raise RefusalError(f"what is allowed does not work: {_output(allowed)}")
    found: list[_Attempt] = []
    while len(found) < (1 if client.name in kind.slow else _ATTEMPTS):
        found.append(_attempt(bench, kind, client, daemon))
        if found[-1].counts < AT_ONCE:
            break
    return min(found, key=lambda attempt: attempt.counts)


def _attempt(bench: Bench, kind: Kind, client: Client, daemon: Daemon) -> _Attempt:
    target, start = kind.host(bench.names), len(daemon.lines())
    reached = bench.lab.blocked.counters()["Tcp.PassiveOpens"]
    bench.wire.forget()
    done = client.act(bench, target.host)
    ended = time.time()
    asked = bench.wire.first(target.host)
    output = _output(done)
    if done.ok:
        raise RefusalError(f"it was not refused: {output}")
    if bench.lab.blocked.counters()["Tcp.PassiveOpens"] != reached:
        raise RefusalError(f"it has reached the registry: {output}")
    if not eventually(lambda: _is_logged(daemon.lines()[start:], target.host)):
        raise RefusalError(f"the log lacks it: {daemon.lines()[start:]}, {output}")
    line = refusal_lines.last_line(output, target.host, target.address)
    return _Attempt(output, line, done.seconds, None if asked is None else ended - asked)


def _is_logged(lines: Sequence[dict[str, Any]], host: str) -> bool:
    return any(line["event"] == "denied" and host in str(line) for line in lines)


def _output(done: Finished) -> str:
    return f"{done.stdout}\n{done.stderr}".strip()


if __name__ == "__main__":
    sys.exit(main())

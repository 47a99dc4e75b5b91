"""`ram-ebpf doctor`: whether this host can do what ram-ebpf needs, and what to do where it cannot."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ram_ebpf import __version__
from ram_ebpf.cli.printing import print_lines, printable
from ram_ebpf.policy.words import plural

if TYPE_CHECKING:
    from ram_ebpf.doctor.case import Case
    from ram_ebpf.doctor.finding import Finding

FORMAT = 1
"""Of the JSON; it changes when a program that reads it must."""
_WRONG_USAGE = 2  # as of argparse
_INTERRUPTED = 130  # as shells say it
_NARROW, _WIDE = 60, 160  # columns
_STATUS, _CHECK = 9, 20
_CURE = " " * (_STATUS + _CHECK) + "-> "


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `doctor`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "doctor",
        help="check whether this host can do what is needed",
        description=(
            "Checks the kernel by trying, control groups, resolvers, engines, a policy's scopes and more, "
            "and says what to do where something is wrong. Changes nothing. Without root it checks what it "
            "can. Exit status: 0 when nothing fails, 1 when something does, 2 for wrong arguments."
        ),
    )
    parser.add_argument(
        "--policy",
        metavar="FILE",
        help="the policy that is to hold here (default: /etc/ram-ebpf/policy.yaml if it is there, else the "
        "built-in one)",
    )
    parser.add_argument(
        "--cgroup-root",
        metavar="DIRECTORY",
        type=Path,
        help="what stands for the whole host (default: the root of the control groups)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, one object; see docs/doctor.md")
    parser.add_argument("--debug", action="store_true", help="with a traceback where something went wrong")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Looks at everything; the exit status."""
    logging.basicConfig(
        level=logging.DEBUG if args.debug else logging.CRITICAL, format="%(message)s", stream=sys.stderr
    )
    try:
        with _Signals() as signals:
            return _examine(args, signals)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # as of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _examine(args: argparse.Namespace, signals: _Signals) -> int:
    from ram_ebpf.doctor.case import Case
    from ram_ebpf.doctor.examination import examine
    from ram_ebpf.scopes.cgroup import ScopeError, resolve_root

    try:
        root = None if args.cgroup_root is None else resolve_root(args.cgroup_root)
    except ScopeError as error:
        print(f"ram-ebpf: {error}", file=sys.stderr)
        return _WRONG_USAGE
    case = Case.of(args.policy, root)
    show = show_json if args.json else show_lines
    return show(case, signals.between(examine(case)))


class _Signals:
    """SIGTERM and SIGHUP end it as Ctrl-C does. No second one keeps it from tidying up."""

    def __init__(self) -> None:
        self._ending = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        for number, handler in self._before.items():
            # One who is ending ends with its own exit status.
            signal.signal(number, signal.SIG_IGN if self._ending else handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            # What libraries say of being left in the midst of something helps nobody.
            sys.unraisablehook = lambda unraisable: None
            warnings.simplefilter("ignore")
            raise KeyboardInterrupt

    def between(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """The findings, until it is to end: what was raised within a callback of Python's is lost."""
        for finding in findings:
            if self._ending:
                raise KeyboardInterrupt
            yield finding


def show_lines(case: Case, findings: Iterable[Finding]) -> int:
    """Each as soon as it is there, as some take seconds; what was not checked in one line."""
    count: Counter[str] = Counter()
    unchecked: list[Finding] = []
    for finding in findings:
        count[finding.status.value] += 1
        if finding.checked:
            print_lines(lines_of(finding, _width()))
        else:
            unchecked.append(finding)
    if unchecked:
        first = f"{unchecked[0].status.value:<{_STATUS}}{'not checked':<{_CHECK}}"
        print_lines(_wrapped(first, ", ".join(finding.check.value for finding in unchecked), _width()))
        print_lines(_wrapped(_CURE, unchecked[0].cure, _width()))
    parts = (plural(count["failure"], "failure"), plural(count["warning"], "warning"), f"{count['ok']} ok")
    print_lines(["", f"{', '.join(parts)}; docs/doctor.md explains each"])
    return int(count["failure"] > 0)


def _width() -> int | None:
    """Of the terminal; None where there is none, so that a line stays one."""
    if not sys.stdout.isatty():
        return None
    return min(max(shutil.get_terminal_size().columns, _NARROW), _WIDE)


def lines_of(finding: Finding, width: int | None) -> Iterator[str]:
    """One line, with the cure below where it is not well. `width`: in columns; None: as long as they are."""
    first = f"{finding.status.value:<{_STATUS}}{finding.check.value:<{_CHECK}}"
    yield from _wrapped(first, printable(finding.title), width)
    if finding.cure:
        yield from _wrapped(_CURE, printable(finding.cure), width)


def _wrapped(first: str, text: str, width: int | None) -> list[str]:
    if width is None:
        return [first + text]
    return textwrap.wrap(
        text,
        width,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_on_hyphens=False,
        break_long_words=False,
    )


def show_json(case: Case, findings: Iterable[Finding]) -> int:
    found = list(findings)
    print(json.dumps(report(case, found), indent=2))
    return int(any(finding.status.value == "failure" for finding in found))


def report(case: Case, found: Iterable[Finding]) -> dict[str, Any]:
    """As docs/doctor.md describes it."""
    found = list(found)
    count = Counter(finding.status.value for finding in found)
    return {
        "format": FORMAT,
        "version": __version__,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "root": case.is_root,
        "policy": case.file,
        "summary": {status: count[status] for status in ("ok", "warning", "failure")},
        "findings": [finding.as_json() for finding in found],
    }

"""`ram-ebpf events`: what was refused, a line each, and what is refused from now on."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ram_ebpf.cli.filters import Filter, add_options
from ram_ebpf.cli.instances import ask
from ram_ebpf.cli.printing import print_lines, printable

MOST = 100
"""As many as an instance keeps; see daemon/refusals.py."""
_SHOWN = 10
_PERIOD = 1.0  # seconds
_INTERRUPTED = 130  # as shells say it

_ALL = Filter()

Pause = Callable[[float], bool]
"""Waits so many seconds; false: it is time to end."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `events`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "events",
        help="list what was refused last",
        description=(
            "Lists what the running instances have refused, the latest last. Each keeps the last "
            f"{MOST}; their logs have all. Exit status: 69 when no instance runs, 77 not root."
        ),
    )
    parser.add_argument(
        "--last",
        metavar="N",
        type=_count,
        default=_SHOWN,
        help=f"so many of each instance, 0 to {MOST} (default: %(default)s)",
    )
    parser.add_argument("--follow", action="store_true", help="then go on, once a second, until Ctrl-C")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON, one object a line")
    parser.set_defaults(run=run, pause=_wait)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:4]) > MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to {MOST}")
    return int(text)


def _wait(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def run(args: argparse.Namespace) -> int:
    """Lists, and follows if that is wanted, with `args.pause` (a Pause) between; the exit status."""
    pause: Pause = args.pause
    answers = ask(_REQUEST)
    if isinstance(answers, int):
        return answers
    news, wanted = News(), Filter.of(args)
    for answer in answers:
        if "error" in answer:
            _note(f"pid {answer['instance']}: {answer['error']}")
    try:
        _print(news.first(answers, args.last, wanted), args.json)
        while args.follow and pause(_PERIOD):
            _follow(news, wanted, args.json)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # as of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return os.EX_UNAVAILABLE if all("error" in answer for answer in answers) else 0


_REQUEST = {"verb": "last", "count": MOST}


def _follow(news: News, wanted: Filter, as_json: bool) -> None:
    from ram_ebpf.daemon.control import NotRunningError, ask_all

    try:
        answers = ask_all(_REQUEST)
    except NotRunningError:
        answers = []
    except OSError as error:  # too busy, or ended just now: what is new is there the next time
        _note(f"an instance did not answer ({error}); it is asked again")
        return
    found = news.next(answers)
    for note in news.notes():
        _note(note)
    _print(filter(wanted.matches, found), as_json)


def _print(records: Iterable[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_lines(json.dumps(record) for record in records)
        return
    from ram_ebpf.daemon.records import human_line

    print_lines(f"{record['time']} {human_line(record)}" for record in records)


def _note(text: str) -> None:
    print(printable(f"ram-ebpf: {text}"), file=sys.stderr, flush=True)


@dataclass
class News:
    """Tells from answers to `last` which refusals are new, and what is missing between them."""

    _noted: dict[int, int] = field(default_factory=dict)
    """How many each instance had noted, by its process."""
    _notes: list[str] = field(default_factory=list)

    def first(self, answers: list[dict[str, Any]], count: int, wanted: Filter = _ALL) -> list[dict[str, Any]]:
        """The last ones that are wanted, as many of each instance, in the order of their times."""
        found = []
        for answer in _good(answers):
            self._noted[answer["instance"]] = answer["noted"]
            found += list(filter(wanted.matches, answer["refusals"]))[:count]
        return _sorted(found)

    def next(self, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those since the last call."""
        asked = {answer["instance"] for answer in answers}
        for gone in sorted(self._noted.keys() - asked):
            del self._noted[gone]
            self._notes.append(f"the instance with pid {gone} has ended; its log alone has its last second")
        found = []
        for answer in _good(answers):
            instance, noted, kept = answer["instance"], answer["noted"], answer["refusals"]
            if instance not in self._noted:
                self._notes.append(f"an instance with pid {instance} has started")
            new = noted - self._noted.get(instance, 0)
            if new < 0:  # another one, which has got the same number
                new = noted
            self._noted[instance] = noted
            if new > len(kept):
                self._notes.append(
                    f"{new - len(kept)} refusals came too fast; the log of pid {instance} has them"
                )
            found += kept[: min(new, len(kept))]
        return _sorted(found)

    def notes(self) -> list[str]:
        """What is to be said of instances since the last call."""
        notes, self._notes = self._notes, []
        return notes


def _good(answers: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (answer for answer in answers if "error" not in answer)


def _sorted(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Each instance tells the latest first, and of two at the same moment the order is to stay.
    records.reverse()
    return sorted(records, key=lambda record: str(record["time"]))

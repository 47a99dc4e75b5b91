"""`ram-ebpf top`: what is decided, live."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

from ram_ebpf.cli.instances import ask
from ram_ebpf.cli.printing import print_lines
from ram_ebpf.cli.top_view import SORTS, Frame, Watch, plain_blocks

_PERIOD = 1.0  # seconds
_REQUEST = {"verb": "top"}
_INTERRUPTED = 130  # as shells say it
_BY = {name: key for key, (name, _) in SORTS.items()}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `top`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "top",
        help="show live what is allowed and refused",
        description=(
            "Shows once a second what the running instances allow and refuse, by reason and by host, their "
            "scopes, and the learned addresses that expire next. Keys: q quits, p pauses, and r, c, l and n "
            "sort the hosts by rate, count, time or name. Where standard output is no terminal, plain lines. "
            "Exit status: 69 when no instance runs, 77 not root."
        ),
    )
    parser.add_argument("--once", action="store_true", help="show one second of it, in plain lines")
    parser.add_argument("--json", action="store_true", help="as JSON, an object a line; see docs/audit.md")
    parser.add_argument(
        "--sort", choices=sorted(_BY), default="rate", help="hosts by this (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Shows; the exit status."""
    first = ask(_REQUEST)
    if isinstance(first, int):
        return first
    watch = Watch()
    frame = watch.frame(first, time.monotonic())
    sort = _BY[args.sort]
    try:
        if args.once or args.json or not sys.stdout.isatty():
            return _plain(watch, args, sort)
        return _screen(watch, frame, sort)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # as of `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _plain(watch: Watch, args: argparse.Namespace, sort: str) -> int:
    while True:
        time.sleep(_PERIOD)
        answers = ask(_REQUEST)
        if isinstance(answers, int):
            return answers
        frame = watch.frame(answers, time.monotonic())
        if args.json:
            print_lines([json.dumps(frame.to_json())])
        else:
            print_lines(plain_blocks(frame, sort))
        if args.once:
            return 0


def _screen(watch: Watch, first: Frame, sort: str) -> int:
    import curses

    from ram_ebpf.cli.top_screen import show

    waiting: list[Frame] = [first]

    def look() -> Frame:
        return waiting.pop() if waiting else watch.frame(_answers(), time.monotonic())

    try:
        show(look, _PERIOD, sort)
    except curses.error as error:
        name = os.environ.get("TERM", "")
        print(
            f"ram-ebpf: the terminal ({name or 'TERM is not set'}) cannot be used ({error}): try --once",
            file=sys.stderr,
        )
        return os.EX_UNAVAILABLE
    return 0


def _answers() -> list[dict[str, Any]]:
    """Nothing may be printed while the screen is in use: what goes wrong is shown there."""
    from ram_ebpf.daemon.control import NotRunningError, ask_all

    try:
        return ask_all(_REQUEST)
    except NotRunningError:
        return []
    except OSError as error:  # too busy, or ended just now
        return [{"instance": "?", "error": f"no answer ({error}); it is asked again"}]

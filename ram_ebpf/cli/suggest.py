"""`ram-ebpf suggest`: what was refused, as lines for the policy."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ram_ebpf.cli.printing import print_lines, printable
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, load_policy
from ram_ebpf.policy.model import Policy

if TYPE_CHECKING:
    from ram_ebpf.daemon.kept_refusals import Kept

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_NEEDS_ROOT = "needs root, to see what was refused: run it with sudo"
_EPILOGUE = """\
exit status: 0 also when there is nothing to suggest, 64 several policies and none was chosen, 69 nothing is
known of what was refused, 77 not root, 78 the policy is wrong
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `suggest`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "suggest",
        help="turn what was refused into lines for the policy",
        description=(
            "Prints what was refused, or would have been in mode audit, as YAML to be pasted below "
            "`registries:`. The running instance is asked; where none runs, what the last one kept is read."
        ),
        epilog=_EPILOGUE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--since",
        metavar="TIME",
        type=_duration,
        default=_duration("7d"),
        help="what was refused in the last 90s, 30m, 12h, 3d or 2w (default: 7d; 30 days are kept)",
    )
    parser.add_argument(
        "--min-count", metavar="N", type=_count, default=1, help="leave out what was refused less often"
    )
    parser.add_argument(
        "--policy", metavar="FILE", help="for this policy (default: that of the running instance)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON; docs/audit.md has the schema")
    parser.set_defaults(run=run)


def _duration(text: str) -> int:
    """Seconds."""
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write a number and s, m, h, d or w, as in 3d")
    return int(found[1]) * _UNITS[found[2]]


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 up")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Suggests; the exit status."""
    from ram_ebpf.suggestions import text
    from ram_ebpf.suggestions.proposals import suggest

    found = _known(args.policy)
    if isinstance(found, int):
        return found
    if args.policy is None and len({kept.policy for kept in found}) > 1:
        files = ", ".join(kept.policy or "the built-in policy" for kept in found)
        return _fail(os.EX_USAGE, f"there are several policies; choose one with --policy: {files}")
    file = args.policy or found[0].policy
    catalogue = load_catalogue()
    now = int(time.time())
    since = now - args.since
    try:
        policy = load_policy(file, catalogue) if file is not None else default_policy()
        recent = [refused for kept in found for refused in kept.entries if refused.last >= since]
        suggestions = suggest(recent, policy, catalogue, args.min_count)
    except PolicyErrors as errors:
        print(errors, file=sys.stderr)
        return os.EX_CONFIG
    forgotten = [kept.forgotten for kept in found if kept.forgotten.last >= since]
    if args.json:
        print(json.dumps(text.as_json(suggestions, forgotten, since, now), indent=2))
    else:
        print_lines(text.lines(suggestions, forgotten, since, now, _indent(policy)))
    return 0


def _known(policy: str | None) -> list[Kept] | int:
    """What running instances say, or else what is kept on disk; or the exit status after saying why not.

    `policy`: only of instances with this policy file.
    """
    from ram_ebpf.daemon.control import NotRunningError, ask_all
    from ram_ebpf.daemon.kept_refusals import load_all, read

    try:
        answers = ask_all({"verb": "refused"})
    except NotRunningError:
        answers = []
    except TimeoutError:
        _fail(0, "an instance does not answer: what is kept on disk is looked at")
        answers = []
    except PermissionError:
        return _fail(os.EX_NOPERM, _NEEDS_ROOT)
    for answer in answers:
        if "error" in answer:
            _fail(0, f"pid {answer['instance']}: {answer['error']}")
    told = [kept for answer in answers if (kept := read(answer)) is not None]
    wanted = None if policy is None else str(Path(policy).absolute())
    chosen = [kept for kept in told if wanted is None or kept.policy == wanted]
    try:
        chosen = chosen or [kept for kept in load_all() if wanted is None or kept.policy == wanted]
    except PermissionError:
        return _fail(os.EX_NOPERM, _NEEDS_ROOT)
    if chosen:
        return chosen
    return _fail(
        os.EX_UNAVAILABLE,
        "nothing is known of what was refused"
        + (f" with the policy {wanted}" if wanted is not None else "")
        + ": no instance runs, and none has kept anything; run one, perhaps with mode: audit in its policy",
    )


def _indent(policy: Policy) -> int:
    """Of the items of `registries` in the file, so that what is pasted there stands below each other."""
    line = policy.line_of(0)
    if not line:
        return 2
    with open(policy.file, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        for number, content in enumerate(file, start=1):
            if number == line:
                found = re.match(r"( *)- ", content)
                return len(found[1]) if found is not None else 2
    return 2


def _fail(status: int, text: str) -> int:
    print(printable(f"ram-ebpf: {text}"), file=sys.stderr)
    return status

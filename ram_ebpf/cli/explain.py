"""`ram-ebpf explain`: what would be decided about a host, and what was refused last."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

from ram_ebpf.cli.instances import ask
from ram_ebpf.cli.printing import print_lines


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `explain`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "explain",
        help="say what would be decided about a host, and why",
        description=(
            "Says what the running instances would decide about HOST, or with --last what they have refused. "
            "Exit status: 0 when every scope that was asked allows it, or nothing governs, 1 when one "
            "refuses, 64 for what is no host, 69 when no instance runs, 77 not root."
        ),
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "host", metavar="HOST", nargs="?", help="a name or an address, with :PORT where it is not 443"
    )
    what.add_argument(
        "--last",
        metavar="N",
        type=int,
        nargs="?",
        const=1,
        help="the last refusal, or the last N (up to 100), the latest one first",
    )
    parser.add_argument(
        "--pid", type=int, metavar="N", help="in the scope of this process (default: each scope)"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, a list with one object an instance")
    parser.set_defaults(run=run)


def split_port(text: str) -> tuple[str, int]:
    """`ghcr.io`, `ghcr.io:443`, `::1`, `[::1]:5000`. Raises ValueError."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} has no closing bracket, or something else than :PORT behind it")
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if not host:
        raise ValueError("the host is missing")
    if not port:
        return host, 443
    if not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise ValueError(f"{port!r} is not a port: write a number from 1 to 65535")
    return host, int(port)


def run(args: argparse.Namespace) -> int:
    """Asks all instances; the exit status."""
    if args.last is not None:
        return _last(args)
    try:
        host, port = split_port(args.host)
    except ValueError as error:
        print(f"ram-ebpf: {error}", file=sys.stderr)
        return os.EX_USAGE
    request: dict[str, Any] = {"verb": "explain", "host": host, "port": port}
    if args.pid is not None:
        request["pid"] = args.pid
    answers = ask(request)
    if isinstance(answers, int):
        return answers
    if args.json:
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            print_lines(_lines(answer))
    if any("error" in answer for answer in answers):
        return os.EX_USAGE
    return int(any(not scope["allowed"] for answer in answers for scope in answer["scopes"]))


def _last(args: argparse.Namespace) -> int:
    if args.pid is not None:
        print("ram-ebpf: --pid goes with HOST, not with --last", file=sys.stderr)
        return os.EX_USAGE
    answers = ask({"verb": "last", "count": args.last})
    if isinstance(answers, int):
        return answers
    if args.json:
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            print_lines(_refusal_lines(answer))
    return os.EX_USAGE if any("error" in answer for answer in answers) else 0


def _refusal_lines(answer: dict[str, Any]) -> Iterator[str]:
    from ram_ebpf.daemon.records import human_line

    if "error" in answer:
        yield f"ram-ebpf (pid {answer['instance']}): {answer['error']}"
        return
    if not answer["refusals"]:
        yield f"ram-ebpf (pid {answer['instance']}) has refused nothing since it was started"
    for record in answer["refusals"]:
        yield f"{record['time']} {human_line({k: v for k, v in record.items() if k != 'hint'})}"
        if record.get("scope"):
            yield f"  scope: {record['scope']}"
        yield f"  reason: {record['reason']}, see docs/reasons.md"
        if record.get("hint"):
            yield f"  hint: {record['hint']}"


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    if "error" in answer:
        yield f"ram-ebpf (pid {answer['instance']}): {answer['error']}"
        return
    if answer.get("process"):
        where = answer["cgroup"] or "a cgroup that is not seen here"
        yield f"{answer['process']}[{answer['pid']}] in {where}"
    if not answer["scopes"]:
        yield "nothing governs it: it may connect to anything"
    for scope in answer["scopes"]:
        where = f" at {scope['place']}" if scope["place"] else ""
        verdict = "allowed" if scope["allowed"] else "REFUSED"
        yield f"{verdict} in {scope['scope']} ({scope['posture']}){where}: {scope['explanation']}"

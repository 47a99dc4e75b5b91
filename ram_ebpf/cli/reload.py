"""`ram-ebpf reload`: has the running instances take what their policy files say now."""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

from ram_ebpf.cli.instances import ask

_LOOK_PERIOD = 0.1  # seconds


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `reload`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "reload",
        help="take what the policy file says now",
        description=(
            "Has the running instances take their policy files anew, and waits until that is done. A file "
            "that is wrong changes nothing. They do it by themselves when the file changes, and on SIGHUP."
        ),
        epilog=(
            "exit status: 0 when all have, 69 none runs, 70 one has not in time, 77 not root, "
            "78 a policy is wrong"
        ),
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="to wait (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Asks all instances; the exit status."""
    answers = ask({"verb": "reload"})
    if isinstance(answers, int):
        return answers
    status = os.EX_OK
    waiting: dict[int, int] = {}
    for answer in answers:
        if "error" in answer:
            status = max(status, _complain(answer, answer["error"], os.EX_CONFIG))
        else:
            waiting[answer["instance"]] = answer["number"]
    deadline = time.monotonic() + args.timeout
    while waiting:
        for instance, number in list(waiting.items()):
            found = ask({"verb": "reload", "number": number})
            if isinstance(found, int):
                return found
            answer = next((its for its in found if its["instance"] == instance), {})
            if not answer:
                status = max(status, _complain({"instance": instance}, "it has ended", os.EX_SOFTWARE))
            elif not answer.get("done"):
                continue
            elif answer["problem"]:
                status = max(status, _complain(answer, answer["problem"], os.EX_CONFIG))
            else:
                print(f"ram-ebpf (pid {instance}): reloaded")
            del waiting[instance]
        if waiting and time.monotonic() > deadline:
            for instance in waiting:
                _complain({"instance": instance}, "it has not reloaded yet; its log says more", 0)
            return os.EX_SOFTWARE
        time.sleep(_LOOK_PERIOD if waiting else 0)
    return status


def _complain(answer: dict[str, Any], problem: str, status: int) -> int:
    print(f"ram-ebpf (pid {answer['instance']}): {problem}", file=sys.stderr)
    return status

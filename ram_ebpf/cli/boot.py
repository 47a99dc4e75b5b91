"""`ram-ebpf boot`: enforce the last good policy, early, and leave it to the instance that comes later."""

from __future__ import annotations

import argparse
import os
import sys

from ram_ebpf.cli import run as running

_EPILOGUE = """\
exit status: 0 it is enforced, or an instance does it already, 69 nothing to govern, 70 the kernel refused, 71
no process can be started, 77 not root, 78 the policy or a scope is wrong
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `boot`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "boot",
        help="enforce the last good policy until `run` takes over, and return",
        description=(
            "For the time before `run`, and for the case that it cannot start: attaches what was enforced "
            "last (or the policy file, where nothing was yet) to the scopes that are there and to the units "
            "that are going to be, and returns. The kernel enforces it on, until `ram-ebpf run` takes over, "
            "or `ram-ebpf down`."
        ),
        epilog=_EPILOGUE,
    )
    running.add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Attaches and returns; the exit status."""
    status = running.start(args, leave=True)
    if status == os.EX_TEMPFAIL:
        print("ram-ebpf: that is as good, so nothing was done", file=sys.stderr)
        return os.EX_OK
    return status

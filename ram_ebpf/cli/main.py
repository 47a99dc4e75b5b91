"""The command `ram-ebpf`: one verb a file."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ram_ebpf import __version__
from ram_ebpf.collection import building_for_good

_VERBS = (
    "run",
    "boot",
    "down",
    "check",
    "reload",
    "status",
    "explain",
    "events",
    "suggest",
    "top",
    "doctor",
    "detach",
    "ca",
    "docker-plugin",
)
"""Each is in the module of its name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; the exit status."""
    parser = argparse.ArgumentParser(
        prog="ram-ebpf", description="Registry access management for Linux, enforced in the kernel by eBPF."
    )
    parser.add_argument("--version", action="version", version=f"ram-ebpf {__version__}")
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    words = sys.argv[1:] if argv is None else argv
    # Only the one that is wanted is imported: a daemon would keep all that the others need.
    with building_for_good():
        for verb in words[:1] if words and words[0] in _VERBS else _VERBS:
            importlib.import_module(f"ram_ebpf.cli.{verb.replace('-', '_')}").add_parser(subparsers)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status

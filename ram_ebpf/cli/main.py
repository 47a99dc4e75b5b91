"""The command `ram-ebpf`: one verb a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ram_ebpf import __version__
from ram_ebpf.cli import (
    boot,
    ca,
    check,
    detach,
    docker_plugin,
    doctor,
    down,
    events,
    explain,
    reload,
    run,
    status,
    suggest,
    top,
)

_VERBS = (
    run,
    boot,
    down,
    check,
    reload,
    status,
    explain,
    events,
    suggest,
    top,
    doctor,
    detach,
    ca,
    docker_plugin,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; the exit status."""
    parser = argparse.ArgumentParser(
        prog="ram-ebpf", description="Registry access management for Linux, enforced in the kernel by eBPF."
    )
    parser.add_argument("--version", action="version", version=f"ram-ebpf {__version__}")
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in _VERBS:
        verb.add_parser(subparsers)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status

"""`ram-ebpf detach`: ends the enforcement that a killed instance has left."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ram_ebpf.dataplane.leftovers import Found

_SHOWN = 5  # places

_EPILOGUE = """\
exit status: 0 nothing is enforced any more, 70 the kernel refused, 75 an instance runs, 77 not root, 78 there
are no control groups
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `detach`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "detach",
        help="end what a killed instance has left",
        description=(
            "A killed instance leaves its enforcement to the next one. Where none is to come, this detaches "
            "all programs of ram-ebpf from the control groups and network devices of this host, and removes "
            "their pins."
        ),
        epilog=_EPILOGUE,
    )
    add_root(parser)
    parser.set_defaults(run=run)


def add_root(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says what is looked through."""
    parser.add_argument(
        "--cgroup-root",
        metavar="DIRECTORY",
        type=Path,
        help="what stands for the whole host (default: the root of the control groups)",
    )


def fail(status: int, text: str) -> int:
    """Says why it cannot be done; the exit status."""
    print(f"ram-ebpf: {text}", file=sys.stderr)
    return status


def run(args: argparse.Namespace) -> int:
    """Detaches; the exit status."""
    if os.geteuid() != 0:
        return fail(os.EX_NOPERM, "needs root, to take programs off: run it with sudo")
    from ram_ebpf.daemon.control import running

    pids = running()
    if pids:
        names = ", ".join(map(str, pids))
        return fail(
            os.EX_TEMPFAIL,
            f"an instance runs (pid {names}): stop it, which detaches all that it governs, or write "
            "ram-ebpf down",
        )
    return remove_leftovers(args)


def remove_leftovers(args: argparse.Namespace, silent: bool = False) -> int:
    """Detaches what nobody governs any more; the exit status. `silent`: where there is nothing.

    An instance may live that cannot be asked: what that governs is left alone, and said.
    """
    # What follows needs Linux, and takes a while to import.
    from ram_ebpf.dataplane import leftovers
    from ram_ebpf.scopes.cgroup import ScopeError, find_cgroup2_mount, resolve_root

    try:
        root = find_cgroup2_mount() if args.cgroup_root is None else resolve_root(args.cgroup_root)
    except ScopeError as error:
        return fail(os.EX_CONFIG, str(error))
    count = 0
    held = []
    try:
        for found in leftovers.remove(root, _namespaces(root, whole=args.cgroup_root is None)):
            if found.held:
                held.append(found)
            else:
                print(f"removed {found.what}")
                count += 1
    except OSError as error:
        return fail(os.EX_SOFTWARE, str(error))
    if held:
        sys.stdout.flush()
        return fail(os.EX_TEMPFAIL, _goes_on(held))
    if not count and not silent:
        print("nothing was left")
    return 0


def _goes_on(held: Sequence[Found]) -> str:
    """What is still enforced, and how to end it."""
    places = ", ".join(found.what for found in held[:_SHOWN])
    more = f" and {len(held) - _SHOWN} more places" if len(held) > _SHOWN else ""
    pids = sorted({found.holder for found in held if found.holder is not None})
    cure = f"end it: kill {' '.join(map(str, pids))}" if pids else "find it (pgrep -af ram-ebpf) and end it"
    return (
        f"an instance that cannot be asked goes on enforcing, with {places}{more}: {cure}; then do this again"
    )


def _namespaces(root: Path, whole: bool) -> Iterator[Path]:
    """Network namespaces of the processes below a cgroup; those with names as well where that is the host."""
    from ram_ebpf.dataplane.namespaces import OWN, identity
    from ram_ebpf.scopes.neighbours import namespaces_of
    from ram_ebpf.scopes.netns import NAMED

    found = namespaces_of([root])
    if whole and NAMED.is_dir():
        for path in NAMED.iterdir():
            found.setdefault(identity(path), path)
    return (path for which, path in found.items() if which != identity(OWN))

"""`ram-ebpf down`: ends all enforcement on this host, by whomever it is."""

from __future__ import annotations

import argparse
import os
import sys

from ram_ebpf.cli import detach

_EPILOGUE = """\
exit status: 0 nothing is enforced any more, 70 the kernel refused, 75 an instance goes on, 77 not root,
78 there are no control groups
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb `down`; its arguments carry `run`."""
    parser = subparsers.add_parser(
        "down",
        help="end all enforcement on this host",
        description=(
            "Stops the instances that run (where systemd has started one, by systemctl stop), then removes "
            "what killed ones have left, as detach does. A unit that is enabled starts again with the host, "
            "unless: systemctl disable ram-ebpf ram-ebpf-boot."
        ),
        epilog=_EPILOGUE,
    )
    detach.add_root(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Stops and detaches; the exit status."""
    if os.geteuid() != 0:
        return detach.fail(os.EX_NOPERM, "needs root, to take programs off: run it with sudo")
    from ram_ebpf.daemon.control import running
    from ram_ebpf.daemon.stopping import StopError, stop

    stopped = False
    for pid in running():
        try:
            how = stop(pid)
        except StopError as error:
            return detach.fail(os.EX_TEMPFAIL, str(error))
        print(f"stopped the instance with pid {pid}, {how}")
        sys.stdout.flush()
        stopped = True
    return detach.remove_leftovers(args, silent=stopped)

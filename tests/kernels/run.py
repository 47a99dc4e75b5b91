"""Boots a kernel in QEMU and runs the tests that concern it there, on this host's own root.

    python -m tests.kernels.run path/to/bzImage [-- arguments of pytest]

What came out is left in build/kernels/<name of the image>: console.log, junit-*.xml, summary.json.
docs/kernels.md tells what the image needs.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import prepare, report
from .errors import RunError
from .exchange import Job
from .machine import Machine

_RESULTS = prepare.PROJECT / "build" / "kernels"


def main(argv: Sequence[str] | None = None) -> int:
    """Ends with 0 if all tests passed, with 1 if not, with 2 if none could be run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernels.run", description="tests on another kernel"
    )
    parser.add_argument("image", type=Path, help="an x86_64 bzImage")
    parser.add_argument("--memory", default="2G", help="of the guest (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=5400, metavar="SECONDS", help="for everything (default: %(default)s)"
    )
    # KVM would be faster by far, but hangs on machines that are guests themselves.
    parser.add_argument("--accel", default="tcg", help="of QEMU: tcg or kvm (default: %(default)s)")
    parser.add_argument("--append", default="", help="further words for the kernel's command line")
    parser.epilog = "Arguments after -- are for pytest; a path among them stands for what is run otherwise."
    words = list(sys.argv[1:] if argv is None else argv)
    # By hand: argparse (3.12 and before) takes a positional argument's words in one place only.
    end = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:end])
    # make and CI end us with this; QEMU must not be left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        summary = _run(options, words[end + 1 :])
    except RunError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(summary)
    return 0 if summary.ok else 1


def _run(options: argparse.Namespace, pytest_arguments: Sequence[str]) -> report.Summary:
    started = time.monotonic()
    if not options.image.is_file():
        raise RunError(f"there is no kernel image {options.image}")
    if platform.machine() != "x86_64":
        raise RunError("the guest runs this host's programs, so the host must be x86_64 like the kernel")
    with _results(options.image.name) as share:
        machine = Machine(options.image, share, options.accel, options.memory, options.append)
        machine.command()  # complains at once if there is no QEMU
        cached = _RESULTS / "bytecode"
        prepare.bytecode(cached)
        prepare.servers()
        color = "--color=yes" if sys.stdout.isatty() else "--color=no"
        runs = [[color, *arguments] for arguments in prepare.tests(pytest_arguments)]
        left = options.timeout - (time.monotonic() - started)
        Job(str(cached), runs, left).write(share)
        print(f"booting {options.image}, {time.monotonic() - started:.0f} s after the start", flush=True)
        in_time = machine.run(left)
        summary = report.summarize(share, machine.console, in_time, options.timeout)
        summary.seconds = time.monotonic() - started
        summary.write(share / "summary.json")
    return summary


@contextlib.contextmanager
def _results(name: str) -> Iterator[Path]:
    """A directory of this run's own, which takes its place in the end: runs at the same time do not meet."""
    _RESULTS.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="running-", dir=_RESULTS))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        place = _RESULTS / name
        shutil.rmtree(place, ignore_errors=True)
        directory.rename(place)


if __name__ == "__main__":
    sys.exit(main())

"""What runs inside the guest: looks for features, loads the programs, runs pytest.

guest_init.sh starts it with the directory that is shared with the host. The host leaves there what to do
(Job), and finds the outcome there (Outcome, and pytest's JUnit files).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO

from ram_ebpf.dataplane import cache
from tests.lab import pace

from . import probe, verifier
from .exchange import JUNIT, Job, Outcome

# What pytest gets to report in, when time is up, before the host ends the machine.
_LAST_SECONDS = 8.0
# How slow a guest without hardware acceleration is, with a second one or the rest of a host's work beside it.
_PACE = "5"


def main(share: Path) -> int:
    """Does the job as far as it goes."""
    job = Job.read(share)
    # A copy, as the cache only trusts files of root, and the host's may be another user's.
    shutil.copytree(job.bytecode, cache.DEFAULT_DIRECTORY)
    outcome = Outcome(kernel=os.uname().release)
    _say(f"kernel {outcome.kernel}")
    outcome.missing = probe.missing()
    if not outcome.missing:
        _say("loading the programs")
        for load in verifier.load_all():
            print(load, flush=True)
            outcome.programs.append(asdict(load))
        outcome.write(share)
        _say("starting pytest")
        if all(not program["error"] for program in outcome.programs):
            outcome.pytest = _pytest(job, share)
        _say("done")
    outcome.write(share)
    return 0


def _uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _say(what: str) -> None:
    print(f"guest, {_uptime():.0f} s after its boot: {what}", flush=True)


def _pytest(job: Job, share: Path) -> list[int] | None:
    """Returns the exit statuses; None when time ran out. The first one's output is shown as it comes."""
    with contextlib.ExitStack() as stack:
        logs: list[IO[str] | None] = [None]
        logs += [stack.enter_context(tempfile.TemporaryFile("w+")) for _ in job.pytest[1:]]
        started = [
            stack.enter_context(_start(arguments, share / JUNIT.format(number), log))
            for number, (arguments, log) in enumerate(zip(job.pytest, logs, strict=True))
        ]
        in_time = True
        for process, log in zip(started, logs, strict=True):
            try:
                process.wait(max(0, job.seconds - _uptime() - _LAST_SECONDS))
            except subprocess.TimeoutExpired:
                _say("the time is up")
                in_time = False
                process.send_signal(signal.SIGINT)
                process.wait()
            if log is not None:
                log.seek(0)
                print(log.read(), flush=True)
        return [process.returncode for process in started] if in_time else None


def _start(arguments: Sequence[str], junit: Path, log: IO[str] | None) -> subprocess.Popen[bytes]:
    # The first test of a run starts the lab, which takes minutes where another guest runs beside this one.
    patience = ["-o", "timeout=600"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={junit}", *patience]
    return subprocess.Popen(
        [*command, *arguments],
        env={**os.environ, pace.VARIABLE: _PACE},
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

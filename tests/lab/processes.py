"""Starts programs in a namespace, in a control group and with the lab's own files below /etc.

`ip netns exec` is of no use here, as it mounts a new /sys, which hides the control groups.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .namespaces import Namespace
from .pace import PACE
from .programs import find

# One process all along: each program of the chain replaces the one before, so the pid that Popen knows
# is the wanted program's. The shell moves itself (0 is the writer) before the program opens a socket,
# since a socket belongs to the control group of the process that made it.
_SCRIPT = """
echo 0 > "$1/cgroup.procs" || exit 125
shift
while [ "$1" != -- ]; do
    mount --bind "$1" "$2" || exit 125
    shift 2
done
shift
exec "$@"
"""

Stream = int | IO[str] | None


@dataclass(frozen=True)
class Place:
    """Where a program runs, and the files it sees in the place of others."""

    namespace: Namespace
    cgroup: Path
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """What a program that has ended left: subprocess.CompletedProcess and the seconds it took."""

    args: Sequence[str]
    returncode: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the program ended well."""
        return self.returncode == 0

    def check(self) -> Finished:
        """Return this, or raise when the program failed, with what it said."""
        if not self.ok:
            said = (self.stderr + self.stdout).strip()
            raise RuntimeError(f"{' '.join(self.args)} ended with {self.returncode}: {said}")
        return self


def command(argv: Sequence[str], place: Place) -> list[str]:
    """Return the command line that runs a program in its place."""
    binds = []
    for target, replacement in place.files.items():
        # The real path, since a bind mount over a symbolic link lands on what it points to.
        real = os.path.realpath(target)
        if Path(real).exists():
            binds += [str(replacement), real]
    return [
        # A server must not outlive the lab, however that ends. The kernel sends this signal when the
        # thread that started the program ends: start servers from a thread that lives as long as the lab.
        *(find("setpriv"), "--pdeathsig", "KILL", "--"),
        *(find("nsenter"), f"--net={place.namespace.path}", "--"),
        # Slave: nothing that is mounted here gets out, and what is unmounted outside is not kept alive.
        *(find("unshare"), "--mount", "--propagation", "slave", "--"),
        *(find("sh"), "-c", _SCRIPT, "ramlab", str(place.cgroup), *binds, "--"),
        find(argv[0]),
        *argv[1:],
    ]


def start(
    argv: Sequence[str],
    place: Place,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
) -> subprocess.Popen[str]:
    """Start a program in its place, as the leader of a new process group."""
    return subprocess.Popen(
        command(argv, place),
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def run(
    argv: Sequence[str],
    place: Place,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    stdin: str | None = None,
    timeout: float = 30.0,
) -> Finished:
    """Run a program in its place to its end. On a timeout (see pace.py) kill it and raise TimeoutExpired."""
    source = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    started = time.perf_counter()
    process = start(
        argv, place, env=env, cwd=cwd, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        try:
            stdout, stderr = process.communicate(stdin, timeout * PACE)
        except BaseException:
            kill(process)
            raise
    return Finished(tuple(argv), process.returncode, stdout, stderr, time.perf_counter() - started)


def stop(process: subprocess.Popen[str], patience: float = 3.0) -> None:
    """End a program, politely first, and release what Popen holds of it."""
    with process:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a program and its children, which would keep its pipes open."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()

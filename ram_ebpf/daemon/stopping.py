"""Has running instances end, as their service manager or else themselves do it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
from pathlib import Path

PATIENCE = 40.0
"""Seconds for an instance to detach everything: more than the unit's TimeoutStopSec=."""
_UNIT = re.compile(r"^0::/(?:.*/)?([^/]+\.service)$", re.MULTILINE)


class StopError(RuntimeError):
    """An instance goes on; says which, and what to do."""


def stop(pid: int) -> str:
    """Ends one, and waits until it has; how it was done. Raises StopError or PermissionError.

    One that systemd would start again is stopped by systemd.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return "it had ended by itself"
    try:
        unit = unit_of(pid)
        if unit is not None:
            _ask_systemd(unit)
            how = f"by systemctl stop {unit}"
        else:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGTERM)
            how = "by SIGTERM"
        if not select.select([process], [], [], PATIENCE)[0]:
            raise StopError(
                f"the instance with pid {pid} was told to stop ({how}) and has not ended for "
                f"{PATIENCE:.0f} seconds: end it with kill -9 {pid}, then do this again"
            )
    finally:
        os.close(process)
    return how


def unit_of(pid: int) -> str | None:
    """The unit of systemd whose main process that is; None where there is none."""
    if shutil.which("systemctl") is None:
        return None
    try:
        found = _UNIT.search(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"))
    except OSError:
        return None
    if found is None:
        return None
    asked = subprocess.run(
        ["systemctl", "show", "--property=MainPID", "--value", "--", found[1]],
        capture_output=True,
        text=True,
        check=False,
    )
    return found[1] if asked.stdout.strip() == str(pid) else None


def _ask_systemd(unit: str) -> None:
    done = subprocess.run(["systemctl", "stop", "--", unit], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StopError(f"systemctl stop {unit}: {done.stderr.strip() or 'failed'}")

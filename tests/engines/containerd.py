"""A containerd on a machine, apart from that of a dockerd."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping

from .machine import Machine

_PATIENCE = 20.0


@contextlib.contextmanager
def started(machine: Machine, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """It runs, in the control group `containerd`. A dockerd on the machine must have been started before."""
    log = machine.share / "containerd.log"
    # Its own number, and not that of who waits for it: the next one is to trust others.
    argv = ["sh", "-c", f"echo $$ >{machine.share}/containerd.pid; exec containerd"]
    with log.open("w", encoding="utf-8") as file:
        process = machine.popen(argv, machine.cgroup("containerd"), env=env, stdout=file)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not machine.run(["ctr", "version"]).ok:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"containerd does not start: {log.read_text(encoding='utf-8')[-3000:]}")
        yield
    finally:
        machine.run(["sh", "-c", f"kill $(cat {machine.share}/containerd.pid)"])
        machine.node.stop(process)

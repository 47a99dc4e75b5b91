"""No memory, no descriptors: the daemon, or what reads a policy for it, is killed for it or does without."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
from pathlib import Path

import pytest

from ram_ebpf.daemon.control import ask_all
from tests.lab.lab import Lab

from .instances import Instances, policy, take
from .starvation import kills, limited, take_away
from .traffic import FarEnds, Traffic

_ENOUGH = 160 << 20  # for a small policy
_NAMES = 100_000


def _large() -> str:
    rules = "".join(f"  - host: n{number}.large.test\n" for number in range(_NAMES))
    return policy().replace("registries:\n", f"registries:\n{rules}")


def _within(group: Path) -> list[str]:
    inner = f'echo 0 >"{group}/cgroup.procs" && exec "$@"'
    return ["sh", "-c", inner, "sh", sys.executable, "-m", "ram_ebpf"]


@pytest.mark.long
def test_no_memory_for_a_policy(lab: Lab, ends: FarEnds, scope: Path, instances: Instances) -> None:
    """The kernel kills the process that reads it. The daemon says so, and enforces on."""
    with limited("ramlab-tight", _ENOUGH) as group:
        daemon = instances.start(command=_within(group))
        with Traffic(lab, ends, scope) as traffic:
            line = take(daemon, _large())
            assert line["event"] == "reload-failed", line
            assert "ended early, with status -9" in line["explanation"]
            assert kills(group) >= 1
            assert take(daemon, policy(others=True))["event"] == "reloaded"
            traffic.finish().assert_right()
        instances.end()


@pytest.mark.long
def test_out_of_memory(lab: Lab, ends: FarEnds, scope: Path, instances: Instances) -> None:
    """The kernel kills the daemon itself, and what is enforced stays."""
    with limited("ramlab-tight", _ENOUGH) as group:
        daemon = instances.start(command=_within(group))
        with Traffic(lab, ends, scope) as traffic:
            start = len(daemon.lines())
            take_away(group)
            deadline = time.monotonic() + 60
            while not daemon.has_ended() and time.monotonic() < deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(daemon.pid, signal.SIGHUP)  # it takes memory to read a policy
                time.sleep(0.2)
            assert daemon.has_ended(), daemon.lines()[start:]
            assert kills(group) >= 1
            instances.forget()
            time.sleep(0.5)
            instances.start()
            traffic.finish().assert_right()


@pytest.mark.long
def test_no_descriptors(lab: Lab, ends: FarEnds, scope: Path, instances: Instances) -> None:
    """A reload fails, and whoever asks meanwhile is not answered; afterwards both work."""
    daemon = instances.start()
    run = Path(lab.client.env["RAM_EBPF_RUN"])
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    with Traffic(lab, ends, scope) as traffic:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (4, before[1]))
        try:
            line = take(daemon, policy(others=True))
            assert line["event"] == "reload-failed", line
            with contextlib.suppress(OSError, ValueError):  # the first one gets a descriptor from before
                ask_all({"verb": "status"}, run, patience=1.0)
            with pytest.raises((OSError, ValueError)):
                ask_all({"verb": "status"}, run, patience=1.0)
            time.sleep(2.0)
        finally:
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
        assert take(daemon, policy(others=True, more="message: again\n"))["event"] == "reloaded"
        assert [answer["instance"] for answer in ask_all({"verb": "status"}, run)] == [daemon.pid]
        traffic.finish().assert_right()


@pytest.mark.long
def test_no_address_space(lab: Lab, ends: FarEnds, scope: Path, instances: Instances) -> None:
    """None for the stacks of threads that a reload takes: it fails, unless the C library has
    kept those of threads that have ended. Either way the next one does not."""
    daemon = instances.start()
    used = next(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii").splitlines()
        if line.startswith("VmSize:")
    )
    before = resource.prlimit(daemon.pid, resource.RLIMIT_AS)
    with Traffic(lab, ends, scope) as traffic:
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, (used + (1 << 20), before[1]))
        line = take(daemon, policy(others=True))
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, before)
        if line["event"] != "reloaded":
            assert line["event"] == "reload-failed", line
            assert "can't start new thread" in line["explanation"]
        assert take(daemon, policy(others=True, more="message: again\n"))["event"] == "reloaded"
        traffic.finish().assert_right()

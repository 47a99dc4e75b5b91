"""No memory, no descriptors: the daemon is killed for it, or does without."""

from __future__ import annotations

import contextlib
import resource
import sys
import time
from pathlib import Path

import pytest

from ram_ebpf.daemon.control import ask_all
from tests.lab.lab import Lab

from .instances import Instances, policy, take, wait_reloaded, write
from .starvation import kills, limited
from .traffic import FarEnds, Traffic

_ENOUGH = 160 << 20  # for a small policy
_NAMES = 100_000


def _large() -> str:
    rules = "".join(f"  - host: n{number}.large.test\n" for number in range(_NAMES))
    return policy().replace("registries:\n", f"registries:\n{rules}")


@pytest.mark.long
def test_out_of_memory(lab: Lab, ends: FarEnds, scope: Path, instances: Instances) -> None:
    """A policy for which there is no memory: the kernel kills the daemon, and what is enforced stays."""
    with limited("ramlab-tight", _ENOUGH) as group:
        inner = f'echo 0 >"{group}/cgroup.procs" && exec "$@"'
        command = ["sh", "-c", inner, "sh", sys.executable, "-m", "ram_ebpf"]
        daemon = instances.start(command=command)
        with Traffic(lab, ends, scope) as traffic:
            start = len(daemon.lines())
            write(daemon, _large())
            deadline = time.monotonic() + 60
            while not daemon.has_ended() and time.monotonic() < deadline:
                time.sleep(0.1)
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
    """What is too large is not taken."""
    daemon = instances.start()
    used = next(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{daemon.pid}/status").read_text(encoding="ascii").splitlines()
        if line.startswith("VmSize:")
    )
    before = resource.prlimit(daemon.pid, resource.RLIMIT_AS)
    with Traffic(lab, ends, scope) as traffic:
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, (used + (24 << 20), before[1]))
        start = len(daemon.lines())
        write(daemon, _large())
        assert wait_reloaded(daemon, start)["event"] == "reload-failed"
        resource.prlimit(daemon.pid, resource.RLIMIT_AS, before)
        assert take(daemon, policy(others=True))["event"] == "reloaded"
        traffic.finish().assert_right()

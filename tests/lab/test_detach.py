"""`ram-ebpf detach` after a daemon was killed for good, and while one runs."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from ram_ebpf import __version__
from ram_ebpf.dataplane.cgroups import ours_attached
from ram_ebpf.dataplane.pins import pinned
from ram_ebpf.dataplane.programs import CGROUP_HOOKS
from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon, governed, tcp_connect

from . import switch, topology
from .daemon import COMMAND
from .lab import Lab
from .processes import Finished
from .switch import SwitchDaemon, programs_on

ROOT = Path(__file__).parents[2]
POLICY = f"{switch.POLICY}refusals: {{ responder: off }}\n"


def detach(lab: Lab, root: Path, *before: str, verb: str = "detach") -> Finished:
    """Below one control group of the lab alone: others of this machine are not ours to end."""
    argv = [*before, *COMMAND, verb, "--cgroup-root", str(root)]
    return lab.client.run(argv, cgroup=lab.client.services, cwd=ROOT)


def pins(lab: Lab) -> list[Path]:
    return list((lab.directory / "bpf").glob("ram-ebpf*"))


def test_after_a_killed_instance(lab: Lab, scope: Path, inside: Actor) -> None:
    with ScopedDaemon(lab, POLICY, scopes=[scope]) as daemon:
        daemon.signal(signal.SIGKILL)
    with pytest.raises(PermissionError):
        tcp_connect(inside, topology.BLOCKED)
    inside.reset()
    assert [left.version for left in pinned(lab.directory / "bpf")] == [__version__]
    done = detach(lab, scope)
    assert done.returncode == 0, done.stderr
    assert f"removed {len(CGROUP_HOOKS)} programs at {scope}\n" in done.stdout
    assert "removed the pins in " in done.stdout
    assert ours_attached(scope) == {}
    assert pins(lab) == []
    tcp_connect(inside, topology.BLOCKED)
    again = detach(lab, scope)
    assert (again.returncode, again.stdout) == (0, "nothing was left\n")


def test_at_a_device(lab: Lab, scope: Path) -> None:
    with SwitchDaemon(lab, POLICY, ["device:client"]) as daemon:
        daemon.signal(signal.SIGKILL)
    assert len(programs_on(lab)) == 2
    done = detach(lab, scope, "nsenter", f"--net={switch.of(lab).path}", "--")
    assert done.returncode == 0, done.stderr
    assert "removed 2 programs at device client\n" in done.stdout
    assert programs_on(lab) == []


def test_at_a_device_of_another_namespace(lab: Lab, scope: Path) -> None:
    """Which is found by a process that is in it."""
    with SwitchDaemon(lab, POLICY, ["device:client"]) as daemon:
        daemon.signal(signal.SIGKILL)
    inside = ["nsenter", f"--net={switch.of(lab).path}", "--", "sleep", "60"]
    sleeper = lab.client.popen(inside, cgroup=scope)
    try:
        done = detach(lab, scope)
        assert done.returncode == 0, done.stderr
        assert re.search(r"^removed 2 programs at device client in /proc/\d+/ns/net$", done.stdout, re.M)
        assert programs_on(lab) == []
    finally:
        lab.client.stop(sleeper)


def test_while_an_instance_runs(lab: Lab, scope: Path, inside: Actor) -> None:
    with governed(lab, POLICY, scopes=[scope]) as daemon:
        done = detach(lab, scope)
        assert done.returncode == os.EX_TEMPFAIL
        assert done.stderr.startswith(f"ram-ebpf: an instance runs (pid {daemon.pid}): stop it")
        assert len(ours_attached(scope)) == len(CGROUP_HOOKS)
        with pytest.raises(PermissionError):
            tcp_connect(inside, topology.BLOCKED)


@pytest.mark.parametrize("verb", ["detach", "down"])
def test_what_a_living_instance_governs_is_left_alone(lab: Lab, scope: Path, verb: str) -> None:
    """Also where it cannot be asked; then it is said that it goes on."""
    detach(lab, scope)  # what other tests have left
    with governed(lab, POLICY, scopes=[scope]) as daemon:
        assert len(pins(lab)) == 1
        done = detach(lab, scope, "env", f"RAM_EBPF_RUN={lab.directory}/nobody", verb=verb)
        assert (done.returncode, done.stdout) == (os.EX_TEMPFAIL, "")
        assert f"goes on enforcing, with {len(CGROUP_HOOKS)} programs at {scope}: " in done.stderr
        assert f"end it: kill {daemon.pid}; then do this again" in done.stderr
        assert len(ours_attached(scope)) == len(CGROUP_HOOKS)
        assert len(pins(lab)) == 1

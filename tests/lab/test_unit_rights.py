"""With no more rights than the unit gives (packaging/systemd); in guests, with what old kernels know."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from ram_ebpf.dataplane.cgroups import ours_attached
from ram_ebpf.dataplane.programs import CGROUP_HOOKS
from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon, tcp_connect, wait_line

from . import switch, topology
from .daemon import COMMAND
from .lab import Lab
from .switch import programs_on

POLICY = f"{switch.POLICY}refusals: {{ responder: off }}\n"  # so that a refusal is an error of connect()
UNIT = Path(__file__).parents[2] / "packaging/systemd/ram-ebpf.service"
_LATER = {"CAP_PERFMON": 38, "CAP_BPF": 39}  # of Linux 5.8, include/uapi/linux/capability.h


def capabilities() -> list[str]:
    """Those of the unit that this kernel knows."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii"))
    lines = re.findall(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    return [name for line in lines for name in line.split() if _LATER.get(name, 0) <= last]


def limited(*command: str) -> list[str]:
    """A command that has these alone."""
    wanted = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in capabilities())
    return ["setpriv", "--no-new-privs", f"--bounding-set=-all,{wanted}", *command]


@pytest.mark.core
def test_at_a_cgroup(lab: Lab, scope: Path) -> None:
    with ScopedDaemon(lab, POLICY, scopes=[scope], command=limited(*COMMAND)) as first:
        with Actor(lab.client, scope) as inside:
            with pytest.raises(PermissionError):
                tcp_connect(inside, topology.BLOCKED)
            inside.reset()
            inside.resolve("allowed.registry.test")
            tcp_connect(inside, topology.ALLOWED)
        assert "not permitted" not in first.said()
        first.signal(signal.SIGKILL)
    with ScopedDaemon(lab, POLICY, scopes=[scope], command=limited(*COMMAND)) as second:
        replaced = wait_line(second, 0, lambda line: line["event"] == "replaced", "what was replaced")
        assert re.match(rf"{len(CGROUP_HOOKS)} programs", replaced["explanation"])
        assert second.signal(signal.SIGTERM) == 0
    assert ours_attached(scope) == {}


@pytest.mark.core
def test_at_a_device(lab: Lab) -> None:
    command = ["nsenter", f"--net={switch.of(lab).path}", "--", *limited(*COMMAND)]
    with (
        switch.addressed(lab),
        ScopedDaemon(lab, POLICY, scopes=["device:client"], command=command) as daemon,
    ):
        assert len(programs_on(lab)) == 2
        with Actor(lab.client) as client, pytest.raises(ConnectionRefusedError):
            tcp_connect(client, topology.BLOCKED)
        assert daemon.signal(signal.SIGTERM) == 0
    assert programs_on(lab) == []


@pytest.mark.core
def test_responder(lab: Lab, scope: Path) -> None:
    policy = f"{switch.POLICY}refusals: {{ responder: on }}\n"
    with ScopedDaemon(lab, policy, scopes=[scope], command=limited(*COMMAND)) as daemon:
        wait_line(daemon, 0, lambda line: line["event"] == "responder", "the responder")
        assert not [line for line in daemon.lines() if line["event"] == "no-responder"]
        assert daemon.signal(signal.SIGTERM) == 0

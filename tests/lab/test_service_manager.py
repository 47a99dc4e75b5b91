"""What the daemon tells a service manager, and that it falls silent when its main loop hangs."""

from __future__ import annotations

import fcntl
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ram_ebpf.dataplane.cgroups import ours_attached
from ram_ebpf.dataplane.programs import CGROUP_HOOKS
from tests.adversarial.actor import Actor
from tests.adversarial.field import DAEMON_PATIENCE, ScopedDaemon, eventually, tcp_connect

from . import topology
from .daemon import COMMAND
from .lab import Lab
from .service_manager import Manager

ROOT = Path(__file__).parents[2]
WATCHDOG = 0.9  # seconds
POLICY = f"""\
version: 1
registries: [{{ host: allowed.registry.test, private: true }}]
refusals: {{ responder: off }}
resolvers: [{Lab.resolver}]
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with closing(Manager(str(tmp_path / "notify"))) as made:
        yield made


@pytest.fixture
def command(manager: Manager) -> list[str]:
    """With the variables that systemd sets."""
    watchdog = f"WATCHDOG_USEC={int(WATCHDOG * 1e6)}"
    return ["env", f"NOTIFY_SOCKET={manager.address}", watchdog, *COMMAND]


def is_beat(said: dict[str, str]) -> bool:
    return said == {"WATCHDOG": "1"}


def test_life(lab: Lab, scope: Path, manager: Manager, command: list[str]) -> None:
    other = lab.new_cgroup(f"{scope.name}-other")
    with ScopedDaemon(lab, POLICY, scopes=[scope, other], command=command) as daemon:
        ready = manager.wait(lambda said: "READY" in said, DAEMON_PATIENCE)
        assert ready == {"READY": "1", "STATUS": "governing 2 places (enforce)"}
        assert len(ours_attached(scope)) == len(CGROUP_HOOKS)
        for _ in range(3):
            assert manager.wait(is_beat, WATCHDOG)
        other.rmdir()
        assert manager.wait(lambda said: said == {"STATUS": "governing 1 place (enforce)"}, 5)
        assert daemon.signal(signal.SIGTERM) == 0
    assert manager.wait(lambda said: said == {"STOPPING": "1"}, 1)


def test_daemon_that_stands_still(lab: Lab, scope: Path, manager: Manager, command: list[str]) -> None:
    with ScopedDaemon(lab, POLICY, scopes=[scope], command=command) as daemon:
        assert manager.wait(is_beat, DAEMON_PATIENCE)
        daemon.signal_only(signal.SIGSTOP)
        manager.received()
        assert manager.wait(is_beat, 2 * WATCHDOG) is None
        daemon.signal_only(signal.SIGCONT)
        assert manager.wait(is_beat, WATCHDOG)
        assert daemon.signal(signal.SIGTERM) == 0


def test_main_loop_that_hangs(lab: Lab, scope: Path, manager: Manager, command: list[str]) -> None:
    """It waits for a log that nobody reads. The other threads go on, and are not what is watched."""
    file = lab.directory / "hangs.yaml"
    file.write_text(POLICY, encoding="utf-8")
    argv = [*command, "run", "--policy", str(file), "--scope", f"cgroup:{scope}"]
    daemon = lab.client.popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert daemon.stdout is not None
        assert daemon.stderr is not None
        fcntl.fcntl(daemon.stdout, fcntl.F_SETPIPE_SZ, 4096)
        assert manager.wait(is_beat, DAEMON_PATIENCE)
        with Actor(lab.client, scope) as actor:
            for port in range(1000, 1100):
                with pytest.raises(PermissionError):
                    tcp_connect(actor, topology.BLOCKED, port)
                actor.reset()
            assert eventually(lambda: manager.wait(is_beat, 2 * WATCHDOG) is None)
            # What the manager does then. What is enforced stays, and the log says where it hung.
            daemon.send_signal(signal.SIGABRT)
            assert daemon.wait(10) == -signal.SIGABRT
            with pytest.raises(PermissionError):
                tcp_connect(actor, topology.BLOCKED)
        said = daemon.stderr.read()
        assert "Fatal Python error: Aborted" in said
        assert "daemon/controller.py" in said
        assert "daemon/records.py" in said
    finally:
        lab.client.stop(daemon)
    with ScopedDaemon(lab, POLICY, scopes=[scope]) as second:  # to take away what the first one has left
        assert second.signal(signal.SIGTERM) == 0
    assert ours_attached(scope) == {}

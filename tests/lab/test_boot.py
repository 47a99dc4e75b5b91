"""`ram-ebpf boot` and `ram-ebpf down`: enforcement from before the daemon is there, and its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.dataplane.cgroups import ours_attached
from ram_ebpf.dataplane.programs import CGROUP_HOOKS
from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon, governed, tcp_connect

from . import topology
from .daemon import COMMAND
from .lab import Lab
from .processes import Finished
from .test_restart import NAME, WILD, is_open, policy, server

__all__ = ["server"]  # a fixture

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
UNIT = "ram-lab.service"
ALLOWED = "  - host: allowed.registry.test\n    private: true\n"


def run(lab: Lab, verb: str, *words: str) -> Finished:
    return lab.client.run([*COMMAND, verb, *words], cgroup=lab.client.services, cwd=ROOT)


@pytest.fixture
def file(lab: Lab, tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(policy(WILD), encoding="utf-8")
    return path


@pytest.fixture
def booted(lab: Lab, scope: Path, file: Path) -> Iterator[Finished]:
    yield run(lab, "boot", "--policy", str(file), "--scope", f"cgroup:{scope}")
    assert run(lab, "down", "--cgroup-root", str(scope)).returncode == 0


@pytest.mark.core
@pytest.mark.usefixtures("server")
def test_until_somebody_comes(lab: Lab, booted: Finished, scope: Path, inside: Actor) -> None:
    """It is enforced when nobody runs, and taken over with what was learned."""
    booted.check()
    assert {len(found) for found in ours_attached(scope).values()} == {1}
    with pytest.raises(PermissionError):
        tcp_connect(inside, topology.BLOCKED)
    inside.resolve(NAME)
    assert is_open(inside)
    with governed(lab, policy(WILD), scopes=[scope]):
        assert is_open(inside)
        assert {len(found) for found in ours_attached(scope).values()} == {1}
        while_it_runs = run(lab, "boot", "--scope", f"cgroup:{scope}")
        assert while_it_runs.returncode == 0
        assert "so nothing was done" in while_it_runs.stderr
    assert ours_attached(scope) == {}


def test_last_good_policy(lab: Lab, scope: Path, inside: Actor) -> None:
    """Which was enforced before, whatever the file says now."""
    with governed(lab, policy(ALLOWED), scopes=[scope]) as daemon:
        options = ("--policy", str(daemon.policy_file), "--scope", f"cgroup:{scope}")
    daemon.policy_file.write_text("version: 1\nregistries: [\n", encoding="utf-8")
    run(lab, "boot", *options).check()
    inside.resolve("allowed.registry.test")
    tcp_connect(inside, topology.ALLOWED)
    with pytest.raises(PermissionError):
        tcp_connect(inside, topology.BLOCKED)
    down = run(lab, "down", "--cgroup-root", str(scope))
    assert f"removed {len(CGROUP_HOOKS)} programs at {scope}\n" in down.stdout
    inside.reset()
    tcp_connect(inside, topology.BLOCKED)


def test_what_cannot_be_pinned_is_not_left(lab: Lab, scope: Path, file: Path) -> None:
    """It would refuse everything."""
    argv = [
        "env",
        "RAM_EBPF_BPFFS=/dev/null",
        *COMMAND,
        "boot",
        "--policy",
        str(file),
        "--scope",
        f"cgroup:{scope}",
    ]
    done = lab.client.run(argv, cgroup=lab.client.services, cwd=ROOT)
    assert done.returncode == os.EX_SOFTWARE
    assert ours_attached(scope) == {}


def test_wrong_policy(lab: Lab, scope: Path, file: Path) -> None:
    file.write_text("version: 2\n", encoding="utf-8")
    done = run(lab, "boot", "--policy", str(file), "--scope", f"cgroup:{scope}")
    assert done.returncode == os.EX_CONFIG
    assert f"{file}:1" in done.stderr
    assert ours_attached(scope) == {}


def test_down_while_an_instance_runs(lab: Lab, scope: Path, inside: Actor) -> None:
    with governed(lab, policy(WILD), scopes=[scope]) as daemon:
        with pytest.raises(PermissionError):
            tcp_connect(inside, topology.BLOCKED)
        inside.reset()
        done = run(lab, "down", "--cgroup-root", str(scope))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == f"stopped the instance with pid {daemon.pid}, by SIGTERM"
        assert ours_attached(scope) == {}
        tcp_connect(inside, topology.BLOCKED)


def test_down_when_it_hangs(lab: Lab, scope: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with what to do; nothing is removed under its feet."""
    from ram_ebpf.daemon import stopping

    monkeypatch.setattr(stopping, "PATIENCE", 0.3)
    with ScopedDaemon(lab, policy(WILD), scopes=[scope]) as daemon:
        daemon.signal_only(signal.SIGSTOP)
        with pytest.raises(stopping.StopError, match=f"kill -9 {daemon.pid}"):
            stopping.stop(daemon.pid)
        assert len(ours_attached(scope)) == len(CGROUP_HOOKS)
        daemon.signal_only(signal.SIGCONT)

"""Another policy while the daemon runs: taken at once, or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.daemon import last_good
from ram_ebpf.dataplane.cgroups import ours_attached
from ram_ebpf.dataplane.programs import CGROUP_HOOKS
from ram_ebpf.scopes.cgroup import find_cgroup2_mount
from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import ScopedDaemon, eventually, governed, tcp_connect, wait_line

from . import topology
from .daemon import COMMAND, Daemon
from .lab import Lab
from .processes import Finished, stop
from .test_restart import (
    MORE,
    NAME,
    REQUEST,
    SHORT,
    WILD,
    connected,
    is_open,
    policy,
    server,
    talk,
)

__all__ = ["server"]  # a fixture

pytestmark = pytest.mark.root
ROOT = Path(__file__).parents[2]
ALLOWED = "  - host: allowed.registry.test\n    private: true\n"


class Running:
    """A daemon and its policy file."""

    def __init__(self, lab: Lab, daemon: Daemon) -> None:
        self.lab = lab
        self.daemon = daemon
        self.file = daemon.policy_file

    def write(self, text: str) -> None:
        """As editors and configuration managers do: by a rename."""
        aside = self.file.with_suffix(".new")
        aside.write_text(text, encoding="utf-8")
        aside.rename(self.file)

    def takes(self, text: str) -> dict[str, object]:
        """Writes a policy and waits until it is noticed; the line of the log."""
        start = len(self.daemon.lines())
        self.write(text)
        return wait_line(
            self.daemon,
            start,
            lambda line: line["event"] in ("reloaded", "reload-failed"),
            "the reload",
            patience=60.0,
        )

    def ask(self) -> Finished:
        argv = [sys.executable, "-m", "ram_ebpf", "reload"]
        return self.lab.client.run(argv, cgroup=self.lab.client.services, cwd=ROOT)


@pytest.fixture
def running(lab: Lab, scope: Path) -> Iterator[Running]:
    with governed(lab, policy(WILD), scopes=[scope]) as daemon:
        yield Running(lab, daemon)


@pytest.mark.core
def test_added_and_removed(running: Running, inside: Actor, scope: Path) -> None:
    with pytest.raises(PermissionError):
        tcp_connect(inside, topology.ALLOWED)
    line = running.takes(policy(MORE, ALLOWED, WILD))
    assert (line["event"], line["rules"]) == ("reloaded", 5)
    tcp_connect(inside, topology.ALLOWED)
    assert {len(found) for found in ours_attached(scope).values()} == {1}
    line = running.takes(policy(WILD))
    assert line["event"] == "reloaded"
    with pytest.raises(PermissionError):
        tcp_connect(inside, topology.ALLOWED)
    assert list(ours_attached(scope)) == list(CGROUP_HOOKS)


@pytest.mark.core
def test_what_was_learned(running: Running, inside: Actor, server: RemoteSocket) -> None:
    inside.resolve(NAME)
    assert is_open(inside)
    assert running.takes(policy(MORE, WILD))["event"] == "reloaded"
    assert is_open(inside)
    assert running.takes(policy(MORE))["event"] == "reloaded"
    assert not is_open(inside)


@pytest.mark.core
def test_open_connection(running: Running, inside: Actor, server: RemoteSocket) -> None:
    inside.resolve(NAME)
    client = connected(inside)
    peer = server.accept()
    talk(client, peer, REQUEST)
    assert running.takes(policy(MORE, WILD, more=SHORT))["event"] == "reloaded"
    talk(client, peer, b"behind the first reload")
    assert running.takes(policy(WILD, MORE, more=SHORT))["event"] == "reloaded"
    talk(client, peer, b"behind the second")
    start = len(running.daemon.lines())
    assert running.takes(policy(MORE))["event"] == "reloaded"
    client.send(b"more")
    line = wait_line(running.daemon, start, lambda line: line.get("reason") == "denied-removed", "the cut")
    assert line["address"] == topology.ALLOWED
    with pytest.raises(OSError):
        client.recv()


def test_connections_that_are_kept(running: Running, inside: Actor, server: RemoteSocket) -> None:
    inside.resolve(NAME)
    client = connected(inside)
    peer = server.accept()
    talk(client, peer, REQUEST)
    keep = "connections: { on_removal: keep }\n"
    for registries in (MORE, ALLOWED):
        assert running.takes(policy(registries, more=keep))["event"] == "reloaded"
        talk(client, peer, b"it goes on")
        assert not is_open(inside)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("version: 1\nregistries: [docker-hub\n", "not valid YAML", id="broken"),
        pytest.param("", "the file is empty", id="empty"),
        pytest.param("version: 1\nregistries: [nowhere]\n", "nowhere", id="an unknown id"),
        pytest.param("\0\1\2", "NUL", id="garbage"),
    ],
)
def test_wrong_policy(running: Running, inside: Actor, server: RemoteSocket, text: str, problem: str) -> None:
    inside.resolve(NAME)
    line = running.takes(text)
    assert line["event"] == "reload-failed"
    assert problem in str(line["explanation"])
    assert is_open(inside)
    asked = running.ask()
    assert asked.returncode == os.EX_CONFIG
    assert problem in asked.stderr
    assert running.takes(policy(ALLOWED))["event"] == "reloaded"
    assert not is_open(inside)


def test_policy_that_is_gone(running: Running, inside: Actor, server: RemoteSocket) -> None:
    inside.resolve(NAME)
    running.file.unlink()
    time.sleep(2.5)
    assert is_open(inside)
    assert [line for line in running.daemon.lines() if line["event"].startswith("reload")] == []
    assert running.ask().returncode == os.EX_CONFIG
    assert running.takes(policy(ALLOWED))["event"] == "reloaded"


def test_command_and_signal(lab: Lab, running: Running) -> None:
    start = len(running.daemon.lines())
    running.ask().check()
    wait_line(running.daemon, start, lambda line: line["event"] == "reloaded", "the reload")
    start = len(running.daemon.lines())
    os.kill(running.daemon.pid, signal.SIGHUP)
    wait_line(running.daemon, start, lambda line: line["event"] == "reloaded", "the reload")


def test_mode(running: Running, inside: Actor, server: RemoteSocket) -> None:
    """What passed because nothing was enforced does not go on when it is."""
    assert running.takes(policy(MORE, more="mode: audit\n"))["event"] == "reloaded"
    client = connected(inside)
    peer = server.accept()
    talk(client, peer, REQUEST)
    assert running.takes(policy(MORE))["event"] == "reloaded"
    client.send(b"more")
    with pytest.raises(OSError):
        client.recv()
    assert not is_open(inside)


def test_scopes(lab: Lab, scope: Path, inside: Actor, request: pytest.FixtureRequest) -> None:
    """They come and go with the policy."""
    other = lab.new_cgroup("another-of-" + re.sub(r"\W+", "-", request.node.name))

    def text(*scopes: Path) -> str:
        mount = find_cgroup2_mount()
        items = "".join(f"  - cgroup: /{path.relative_to(mount)}\n" for path in scopes)
        return policy(WILD, more=f"scopes:\n{items}")

    with ScopedDaemon(lab, text(scope), scopes=[]) as daemon, Actor(lab.client, other) as elsewhere:
        running = Running(lab, daemon)
        assert set(ours_attached(scope)) == set(CGROUP_HOOKS)
        tcp_connect(elsewhere, topology.BLOCKED)
        elsewhere.reset()
        assert running.takes(text(other))["event"] == "reloaded"
        assert ours_attached(scope) == {}
        tcp_connect(inside, topology.BLOCKED)
        with pytest.raises(PermissionError):
            tcp_connect(elsewhere, topology.BLOCKED)
        assert running.takes(text(scope, other))["event"] == "reloaded"
        inside.reset()
        with pytest.raises(PermissionError):
            tcp_connect(inside, topology.BLOCKED)
        assert daemon.terminate() == 0
        assert ours_attached(scope) == ours_attached(other) == {}


def test_start_with_a_wrong_policy(lab: Lab, scope: Path, inside: Actor) -> None:
    """The last one that was enforced is, as nothing else would be."""
    state = Path(lab.client.env["RAM_EBPF_STATE"])
    with governed(lab, policy(ALLOWED), scopes=[scope]) as first:
        kept = last_good.place_of(str(first.policy_file), state)
    second = ScopedDaemon(lab, "version: 1\nregistries: [\n", scopes=[scope])
    kept.rename(last_good.place_of(str(second.policy_file), state))
    with second as daemon:
        assert "is wrong, so the policy that was enforced last is used" in daemon.said()
        tcp_connect(inside, topology.ALLOWED)
        with pytest.raises(PermissionError):
            tcp_connect(inside, topology.BLOCKED)
        assert Running(lab, daemon).takes(policy(WILD))["event"] == "reloaded"
        assert daemon.terminate() == 0


def _children_of(process: subprocess.Popen[str]) -> list[str]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    return [Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace") for pid in children]


def test_file_that_changes_while_the_daemon_starts(lab: Lab, scope: Path) -> None:
    """The verifier alone takes long enough for that."""
    file, log = lab.directory / "starting.yaml", lab.directory / "starting.log"
    file.write_text(policy(ALLOWED), encoding="utf-8")
    argv = [*COMMAND, "run", "--policy", str(file), "--scope", f"cgroup:{scope}", "--log-format", "json"]
    with log.open("w", encoding="utf-8") as stream:
        process = lab.client.popen(argv, cgroup=lab.client.services, cwd=ROOT, stdout=stream)

    def reads() -> bool:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return any("policy_process" in words for words in _children_of(process))
        return False

    try:
        assert eventually(reads)
        assert eventually(lambda: not reads())
        aside = file.with_suffix(".new")
        aside.write_text(policy(WILD), encoding="utf-8")
        aside.rename(file)
        process.send_signal(signal.SIGHUP)  # too early to be obeyed, and nothing to die of
        assert "ready" not in log.read_text(encoding="utf-8")
        assert eventually(lambda: '"reloaded"' in log.read_text(encoding="utf-8"), 30.0)
    finally:
        stop(process, 30.0)


def test_many(running: Running, lab: Lab, scope: Path, server: RemoteSocket) -> None:
    """One after the other, while somebody tries all the time: nothing is let through or refused wrongly."""
    with Actor(lab.client, scope) as good, Actor(lab.client, scope) as bad:
        good.resolve(NAME)
        done = running.file.with_suffix(".done")
        bad.start("hammer", topology.BLOCKED, 443, str(done))
        for count in range(6):
            assert running.takes(policy(*((MORE, WILD) if count % 2 else (WILD,))))["event"] == "reloaded"
            assert is_open(good)
        done.touch()
        outcomes = bad.finish()
    assert set(outcomes) == {"EPERM"}
    assert eventually(lambda: {len(found) for found in ours_attached(scope).values()} == {1})
    pins = list((lab.directory / "bpf").glob(f"ram-ebpf/{running.daemon.pid}-*/*"))
    assert len(pins) == 2  # two arrays of one view

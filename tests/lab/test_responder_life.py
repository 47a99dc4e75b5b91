"""The responder's process: its rights, its end, and what becomes of refusals meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from ram_ebpf.daemon import responder_namespaces
from ram_ebpf.dataplane.namespaces import identity
from ram_ebpf.responder import channel, listening
from ram_ebpf.scopes.neighbours import Neighbours
from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon, Target, attempt, eventually, governed, tcp_connect

from . import topology
from .daemon import Daemon
from .lab import Lab
from .test_responder import AT_ONCE, BLOCKED, NAME, POLICY, READY, TEXT, wait_responder

TARGET = Target(topology.BLOCKED, topology.BLOCKED_V6)


def connect(actor: Actor, target: Target) -> None:
    tcp_connect(actor, target.v4)


def processes_of(daemon: Daemon) -> list[int]:
    """The daemon's children."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (directory / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            if int(parent) == daemon.pid:
                found.append(int(directory.name))
    return found


@pytest.mark.core
def test_killed(lab: Lab) -> None:
    """With the daemon its process goes, and refusals are EPERM at once."""
    with Actor(lab.client, lab.client_cgroup) as inside:
        with ScopedDaemon(lab, POLICY) as daemon:
            wait_responder(daemon)
            tcp_connect(inside, topology.BLOCKED)
            inside.reset()
            (process,) = processes_of(daemon)
            daemon.signal(signal.SIGKILL)
            assert eventually(lambda: not Path(f"/proc/{process}").exists())
            with pytest.raises(PermissionError):
                tcp_connect(inside, topology.BLOCKED)
        with governed(lab, POLICY) as daemon:
            wait_responder(daemon)
            tcp_connect(inside, topology.BLOCKED)


def test_killed_with_connections_open(lab: Lab) -> None:
    """Whoever was led just before is cut off at once, and whoever comes after is refused by EPERM."""
    request = f"GET /v2/ HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n".encode()
    first_bytes = {"silent": b"", "half of a ClientHello": b"\x16\x03\x01\x01\x00", "answered": request}
    reached = lab.blocked.counters()["Tcp.PassiveOpens"]
    with Actor(lab.client, lab.client_cgroup) as inside:
        with ScopedDaemon(lab, POLICY) as daemon:
            wait_responder(daemon)
            items = {}
            for what, data in first_bytes.items():
                items[what] = item = inside.socket(socket.AF_INET, socket.SOCK_STREAM)
                item.connect((topology.BLOCKED, 80))
                if data:
                    item.send(data)
            assert TEXT.encode() in items["answered"].recv()
            daemon.signal(signal.SIGKILL)
            for what, item in items.items():
                started = time.monotonic()
                with contextlib.suppress(ConnectionResetError):
                    assert item.recv() == b"", what
                assert time.monotonic() - started < AT_ONCE, what
            for _ in range(20):
                with pytest.raises(PermissionError):
                    tcp_connect(inside, topology.BLOCKED)
        with governed(lab, POLICY):  # takes over, and away what the killed one has left
            pass
    assert lab.blocked.counters()["Tcp.PassiveOpens"] == reached


def test_killed_while_somebody_connects(lab: Lab, tmp_path: Path) -> None:
    """No connection hangs or gets out, in whichever moment it comes."""
    reached = lab.blocked.counters()["Tcp.PassiveOpens"]
    until = tmp_path / "until"
    with Actor(lab.client, lab.client_cgroup) as inside:
        with ScopedDaemon(lab, POLICY) as daemon:
            wait_responder(daemon)
            inside.start("hammer", topology.BLOCKED, 443, str(until))
            time.sleep(1)
            daemon.signal(signal.SIGKILL)
            time.sleep(1)
            until.touch()
            outcomes = inside.finish()
        with governed(lab, POLICY):
            pass
    print(outcomes)
    assert set(outcomes) <= {"connected", "EPERM", "ECONNREFUSED", "ECONNRESET"}
    assert outcomes["connected"] > 10
    assert outcomes["EPERM"] > 10
    assert lab.blocked.counters()["Tcp.PassiveOpens"] == reached


def test_stopped(lab: Lab) -> None:
    """A daemon that stands still says nothing, but the certificate does; some seconds later it is EPERM."""
    with Actor(lab.client, lab.client_cgroup) as inside, governed(lab, POLICY) as daemon:
        wait_responder(daemon)
        os.kill(daemon.pid, signal.SIGSTOP)
        try:
            done = lab.client.run(["skopeo", "inspect", f"docker://{BLOCKED}/{lab.image_name}"])
            assert f"x509: certificate is valid for {NAME}, not {BLOCKED}" in done.stderr
            print(f"answered in {done.seconds:.3f} s")
            assert done.seconds < AT_ONCE
            assert eventually(lambda: isinstance(attempt(inside, connect, TARGET), PermissionError))
        finally:
            os.kill(daemon.pid, signal.SIGCONT)
        assert eventually(lambda: attempt(inside, connect, TARGET) is None, READY)


def test_its_process_is_killed(lab: Lab) -> None:
    """It is started anew, and until then refusals are EPERM."""
    with Actor(lab.client, lab.client_cgroup) as inside, governed(lab, POLICY) as daemon:
        wait_responder(daemon)
        (process,) = processes_of(daemon)
        start = len(daemon.lines())
        os.kill(process, signal.SIGKILL)
        assert eventually(lambda: process not in processes_of(daemon))
        with pytest.raises(PermissionError):
            tcp_connect(inside, topology.BLOCKED)
        daemon.wait(lambda lines: any(line["event"] == "no-responder" for line in lines[start:]), 5)
        daemon.wait(lambda lines: any(line["event"] == "responder" for line in lines[start:]), READY)
        tcp_connect(inside, topology.BLOCKED)


def test_its_process_has_no_rights(lab: Lab) -> None:
    with governed(lab, POLICY) as daemon:
        wait_responder(daemon)
        (process,) = processes_of(daemon)
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        assert status["Uid"].split() == ["65534"] * 4
        assert status["Gid"].split() == ["65534"] * 4
        assert status["Groups"].strip() == ""
        assert status["NoNewPrivs"] == "1"
        for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            assert int(status[kind], 16) == 0
        assert "(deleted)" in str(Path(f"/proc/{process}/root").readlink())
        namespaces = {Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in (process, daemon.pid)}
        assert len(namespaces) == 2


def ask_in_clear_text(actor: Actor) -> bytes:
    item = actor.socket(socket.AF_INET, socket.SOCK_STREAM)
    item.connect((topology.BLOCKED, 80))
    item.send(f"GET /v2/ HTTP/1.1\r\nHost: {BLOCKED}\r\n\r\n".encode())
    answer = item.recv()
    item.close()
    return answer


def test_another_network_namespace(lab: Lab) -> None:
    """As of a container: it is answered there as well, and the namespace is let go of with it."""

    def is_answered(actor: Actor) -> bool:
        with contextlib.suppress(PermissionError):
            return TEXT.encode() in ask_in_clear_text(actor)
        return False

    with governed(lab, POLICY) as daemon:
        wait_responder(daemon)
        (process,) = processes_of(daemon)
        files = Path(f"/proc/{process}/fd")
        before = len(list(files.iterdir()))
        with Actor(lab.dns.node, lab.client_cgroup) as elsewhere:
            assert eventually(lambda: is_answered(elsewhere), patience=READY)
            assert len(list(files.iterdir())) >= before + 2
        assert eventually(lambda: len(list(files.iterdir())) <= before, patience=READY)


def test_a_process_that_has_gone_says_nothing_of_its_namespace(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to a namespace is by a process, which may end between two looks. Others may be in there."""
    path = lab.dns.node.namespace.path
    ended = subprocess.Popen(["true"])
    ended.wait()
    ways = {identity(path): Path(f"/proc/{ended.pid}/ns/net")}
    monkeypatch.setattr(Neighbours, "look", lambda self, cgroups: dict(ways))
    end, other = channel.pair()
    with end, other, contextlib.closing(listening.listen()) as first:
        namespaces = responder_namespaces.Namespaces(end, first)
        assert namespaces.follow([]) is None
        assert (len(namespaces), namespaces.without) == (0, 0)
        ways[identity(path)] = path
        assert namespaces.follow([]) is None
        assert (len(namespaces), namespaces.without) == (1, 0)


def test_off(lab: Lab) -> None:
    policy = POLICY.replace("responder: on", "responder: off")
    with Actor(lab.client, lab.client_cgroup) as inside, governed(lab, policy) as daemon:
        with pytest.raises(PermissionError):
            tcp_connect(inside, topology.BLOCKED)
        time.sleep(0.5)
        assert not any(line["event"] == "responder" for line in daemon.lines())
        assert not processes_of(daemon)


@pytest.mark.parametrize(
    ("posture", "reason"), [("registries", "denied-registry-port"), ("strict", "denied-unknown-address")]
)
def test_host(lab: Lab, posture: str, reason: str) -> None:
    """All of the lab's processes in one scope, the daemon and its responder among them."""
    options = ("--cgroup-root", str(lab.client_cgroup.parent), "--posture", posture)
    with governed(lab, POLICY, *options, scopes=["host"]) as daemon:
        wait_responder(daemon)
        # By the address, as the lab's resolver is in the same scope.
        argv = ["curl", "-sS", f"http://{BLOCKED}:5000/v2/"]
        done = lab.client.run(argv, hosts={BLOCKED: topology.BLOCKED}).check()
        assert json.loads(done.stdout)["errors"][0]["detail"]["reason"] == reason

"""The responder's process: its rights, its end, and what becomes of refusals meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon, eventually, governed, tcp_connect

from . import topology
from .daemon import Daemon
from .lab import Lab
from .test_responder import BLOCKED, POLICY, READY, TEXT, wait_responder


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

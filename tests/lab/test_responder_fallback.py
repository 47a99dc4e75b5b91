"""Where the responder cannot work: refusals are EPERM, the log says why, and enforcement goes on."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.responder import listening
from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon, eventually, governed, tcp_connect, wait_line

from . import topology
from .daemon import COMMAND, Daemon
from .lab import Lab
from .test_responder import POLICY, READY, wait_responder
from .test_responder_life import processes_of
from .test_status import ask

_BY_DEFAULT = POLICY.replace("refusals:\n  responder: on\n", "")


@contextlib.contextmanager
def with_modules(lab: Lab, tmp_path: Path, **modules: str) -> Iterator[Daemon]:
    """ram-ebpf that finds these modules before the installed ones."""
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    before = lab.client.env.get("PYTHONPATH")
    assert before is None
    lab.client.env["PYTHONPATH"] = str(tmp_path)
    try:
        with governed(lab, _BY_DEFAULT) as daemon:
            yield daemon
    finally:
        del lab.client.env["PYTHONPATH"]


@contextlib.contextmanager
def forbidden(lab: Lab, names: str) -> Iterator[Daemon]:
    """ram-ebpf for which some system calls fail."""
    command = [sys.executable, "-m", "tests.lab.forbidding", names, *COMMAND]
    with ScopedDaemon(lab, _BY_DEFAULT, command=command) as daemon:
        yield daemon
        assert daemon.terminate() == 0, daemon.said()


def status(lab: Lab) -> dict[str, Any]:
    (answer,) = json.loads(ask(lab, "status", "--json").stdout)
    assert isinstance(answer["responder"], dict)
    return answer["responder"]


def wait_told(daemon: Daemon, text: str) -> None:
    def wanted(line: dict[str, Any]) -> bool:
        return line["event"] == "no-responder" and text in line["explanation"]

    line = wait_line(daemon, 0, wanted, f"a warning with {text}", READY)
    assert "EPERM" in line["explanation"]


def check_enforced(lab: Lab, text: str) -> None:
    """What is allowed works, and what is not is EPERM, which the status explains."""
    lab.client.pull(f"allowed.registry.test/{lab.image_name}").check()
    connections = lab.blocked.counters()["Tcp.PassiveOpens"]
    with Actor(lab.client, lab.client_cgroup) as inside:
        for address in (topology.BLOCKED, topology.BLOCKED_V6):
            with pytest.raises(PermissionError):
                tcp_connect(inside, address)
    assert lab.blocked.counters()["Tcp.PassiveOpens"] == connections
    state = status(lab)
    assert state["state"] == "failed"
    assert text in state["why"]
    assert "does not run, so refusals are EPERM: " in ask(lab, "status").stdout


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('raise ImportError("nobody has installed it")', id="missing"),
        pytest.param(
            "class Panic(BaseException): pass\nraise Panic('nobody has installed it')", id="a panic"
        ),
    ],
)
def test_without_cryptography(lab: Lab, tmp_path: Path, text: str) -> None:
    with with_modules(lab, tmp_path, cryptography=text) as daemon:
        wait_told(daemon, "reinstall cryptography and pyopenssl: nobody has installed it")
        check_enforced(lab, "nobody has installed it")
        assert not processes_of(daemon)


def test_without_what_its_process_needs(lab: Lab, tmp_path: Path) -> None:
    """It is tried again, at growing intervals."""
    with with_modules(lab, tmp_path, OpenSSL='raise ImportError("of another version")') as daemon:
        wait_told(daemon, "tried again in 1 s: its process has ended at once")
        check_enforced(lab, "its process has ended at once")
        wait_told(daemon, "tried again in 2 s")
        assert "of another version" in daemon.said()


def test_where_its_process_cannot_give_up_rights(lab: Lab) -> None:
    with forbidden(lab, "unshare") as daemon:
        wait_told(daemon, "its process has ended at once")
        check_enforced(lab, "its process has ended at once")


def test_where_other_namespaces_are_out_of_reach(lab: Lab) -> None:
    """As for a service with RestrictNamespaces=. In its own it answers."""
    with forbidden(lab, "setns") as daemon:
        wait_responder(daemon)
        with Actor(lab.client, lab.client_cgroup) as inside:
            tcp_connect(inside, topology.BLOCKED)
        with Actor(lab.dns.node, lab.client_cgroup) as elsewhere:
            wait_told(daemon, "in 1 network namespace of what is governed: [Errno 1]")
            with pytest.raises(PermissionError):
                tcp_connect(elsewhere, topology.BLOCKED)
            state = status(lab)
            assert (state["state"], state["namespaces"], state["without"]) == ("on", 0, 1)
            assert "Operation not permitted" in state["why"]
            assert "; not in 1 other, where refusals are EPERM: " in ask(lab, "status").stdout
        assert eventually(lambda: status(lab)["without"] == 0)
        assert status(lab)["why"] is None


def test_where_its_port_is_taken(lab: Lab) -> None:
    """In another network namespace, where it must be the same one."""
    with governed(lab, _BY_DEFAULT) as daemon, Actor(lab.dns.node) as other:
        wait_responder(daemon)
        port = int(status(lab)["listens"][0].rpartition(":")[2])
        taken = other.socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.bind((str(listening.IPV4), port))
        with Actor(lab.dns.node, lab.client_cgroup) as elsewhere:
            wait_told(daemon, "in 1 network namespace of what is governed: [Errno 98]")
            with pytest.raises(PermissionError):
                tcp_connect(elsewhere, topology.BLOCKED)


def test_where_a_firewall_is_in_the_way(lab: Lab) -> None:
    """A client that is led there would wait for minutes."""
    rule = ("OUTPUT", "-o", "lo", "-d", str(listening.IPV4), "-j", "DROP")
    lab.client.run(["iptables", "-A", *rule], cgroup=lab.client.services).check()
    try:
        with governed(lab, _BY_DEFAULT) as daemon:
            wait_told(daemon, f"{listening.IPV4} port ")
            check_enforced(lab, "cannot be reached on this host, as by a firewall: timed out")
            lab.client.run(["iptables", "-D", *rule], cgroup=lab.client.services).check()
            wait_responder(daemon)
            assert status(lab)["state"] == "on"
    finally:
        lab.client.run(["iptables", "-D", *rule], cgroup=lab.client.services)

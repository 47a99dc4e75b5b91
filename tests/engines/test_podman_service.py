"""podman's service, which speaks Docker's API: by its word too containers are found, held and governed."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from ram_ebpf.dataplane import devices, namespaces
from ram_ebpf.scopes.device import Links
from tests.adversarial.field import eventually, wait_line
from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab

from .machine import Machine
from .names import POLICY, Names, reference


@pytest.fixture(scope="module")
def service(machine: Machine) -> Iterator[None]:
    """At the socket where ram-ebpf looks for Docker's API here."""
    process = machine.popen(
        ["podman", "system", "service", "--time=0", machine.url],
        machine.cgroup("service"),
        stdout=subprocess.DEVNULL,
    )
    try:
        assert eventually(lambda: (machine.share / "docker.sock").exists(), 20.0)
        yield
    finally:
        process.kill()
        process.wait()
        (machine.share / "docker.sock").unlink(missing_ok=True)


def wait_governed(daemon: HostDaemon, start: int, what: str) -> None:
    wait_line(
        daemon,
        start,
        lambda line: line["event"] == "scope-back" and what in line["explanation"],
        what,
        patience=15.0,
    )


def test_container_by_its_label(lab: Lab, names: Names, machine: Machine, service: None) -> None:
    image = reference(names.allowed())
    machine.run(["podman", "pull", image]).check()
    with governed(lab, machine, POLICY, "container:label=team=builds") as daemon:
        start = len(daemon.lines())
        command = ["podman", "run", "--detach", "--pids-limit=0", "--label=team=builds", image]
        container = machine.run([*command, "/bin/busybox", "sleep", "600"]).check().stdout.strip()
        try:
            wait_governed(daemon, start, container)
            wait_governed(daemon, start, "device veth")
            connect = ["podman", "exec", container, "/bin/busybox", "nc", "-w", "5"]
            machine.run([*connect, names.allowed(), "443"], stdin="").check()
            start, target = len(daemon.lines()), names.refused()
            refused = machine.run([*connect, target.host, "443"], stdin="")
            assert not refused.ok
            line = wait_line(
                daemon,
                start,
                lambda line: line["event"] == "denied" and line.get("address") == target.address,
                "the refusal",
            )
            assert line["scope"] == "container label=team=builds"
        finally:
            with contextlib.suppress(RuntimeError):
                machine.run(["podman", "rm", "--force", "--time=0", container]).check()


def test_new_containers_are_held_at_the_bridges_of_all_networks(
    lab: Lab, names: Names, machine: Machine, service: None
) -> None:
    """Networks that were there, and one that is made meanwhile: of that podman 4.3 does not tell."""
    image = reference(names.allowed())
    machine.run(["podman", "pull", image]).check()
    with governed(lab, machine, POLICY, "container:label=team=builds"):
        machine.run(["podman", "network", "create", "later"]).check()
        for network in ("podman", "later"):
            command = ["podman", "run", "--detach", "--pids-limit=0", f"--network={network}", image]
            container = machine.run([*command, "/bin/busybox", "sleep", "600"]).check().stdout.strip()
            try:
                assert eventually(lambda: _held(machine), 5.0), network
            finally:
                with contextlib.suppress(RuntimeError):
                    machine.run(["podman", "rm", "--force", "--time=0", container]).check()
        machine.run(["podman", "network", "rm", "later"]).check()


def _held(machine: Machine) -> bool:
    """Whether there are bridges, and all hold."""
    with namespaces.inside(machine.node.namespace.path):
        bridges = Links.now().bridges
        return bool(bridges) and all(devices.held(bridge) for bridge in bridges)

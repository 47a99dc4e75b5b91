"""Engines governed at the cable of their machine. A refusal is a reset there, and some commands try again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.lab.lab import Lab
from tests.lab.processes import Finished
from tests.lab.switch import SwitchDaemon, governed

from . import trees
from .dockerd import Dockerd
from .judge import Judge
from .machine import Machine
from .measured import Measured
from .names import POLICY, Names, reference
from .wire import Wire

TOLD = "connection refused"
LEARNED = "learned"  # a device has no line for each connection that it lets pass
AT_ONCE = 0.3
# Seconds in which these try again on their own, at growing intervals. Nothing is to be done about it here.
_RETRIES = {"podman": 20.0, "buildah": 20.0}


def test_docker(lab: Lab, names: Names, docker: Dockerd, judge: Judge) -> None:
    def pull(host: str) -> Finished:
        return docker.run("pull", reference(host))

    with governed(lab, POLICY, f"device:{docker.node.name}") as daemon:
        judge.allows(daemon, "pull, at the device", pull, LEARNED)
        line = judge.refuses(daemon, "pull, at the device", pull, AT_ONCE, TOLD)
        assert line["scope"] == f"device {docker.node.name}"


@pytest.fixture(scope="module")
def daemon(lab: Lab, names: Names, machine: Machine) -> Iterator[SwitchDaemon]:
    with governed(lab, POLICY, f"device:{machine.node.name}") as result:
        yield result


@pytest.mark.parametrize("program", ["podman", "buildah", "skopeo"])
def test_commands(
    lab: Lab, names: Names, measured: Measured, machine: Machine, daemon: SwitchDaemon, program: str
) -> None:
    def pull(host: str) -> Finished:
        if program == "skopeo":
            return machine.run(["skopeo", "inspect", f"docker://{reference(host)}"])
        return machine.run([program, "pull", reference(host)])

    with contextlib.closing(Wire(machine.node.namespace)) as wire:
        engine = f"{program} {trees.version(machine.suite, program)}, root"
        judge = Judge(lab, names, measured, wire, engine)
        what = f"{'inspect' if program == 'skopeo' else 'pull'}, at the device"
        judge.allows(daemon, what, pull, LEARNED)
        judge.refuses(daemon, what, pull, _RETRIES.get(program, AT_ONCE), TOLD)

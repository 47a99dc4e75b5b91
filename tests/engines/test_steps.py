"""What RUN steps do themselves: no engine has them in its control group, so the scope is one above."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import builds, trees
from .dockerd import Dockerd
from .judge import Judge
from .machine import Machine
from .measured import Measured
from .names import POLICY, Names
from .wire import Wire

# The engine's own, behind a bridge, and the machine's.
_NETWORKS: dict[str, tuple[str, ...]] = {"bridge": (), "host": ("--network=host",)}


@pytest.fixture(scope="module")
def docker_daemon(lab: Lab, names: Names, docker: Dockerd) -> Iterator[HostDaemon]:
    with governed(lab, docker, POLICY, docker.machine.top) as result:
        yield result


@pytest.fixture(scope="module")
def machine_daemon(lab: Lab, names: Names, machine: Machine) -> Iterator[HostDaemon]:
    with governed(lab, machine, POLICY, machine.top) as result:
        yield result


@pytest.mark.parametrize("network", _NETWORKS)
@pytest.mark.parametrize("builder", ["classic builder", "BuildKit"])
def test_docker(
    docker: Dockerd, docker_daemon: HostDaemon, names: Names, judge: Judge, network: str, builder: str
) -> None:
    env = {"DOCKER_BUILDKIT": str(int(builder == "BuildKit"))}

    def build(host: str) -> Finished:
        context = builds.CONNECT.context(docker.machine, host, names.allowed())
        return docker.run("build", "--no-cache", *_NETWORKS[network], context, env=env)

    _judge(docker_daemon, judge, f"RUN that connects by {network}, {builder}", build)


@pytest.mark.parametrize("network", _NETWORKS)
@pytest.mark.parametrize("program", ["podman", "buildah"])
def test_commands(
    lab: Lab,
    machine: Machine,
    machine_daemon: HostDaemon,
    names: Names,
    measured: Measured,
    program: str,
    network: str,
) -> None:
    def build(host: str) -> Finished:
        context = builds.CONNECT.context(machine, host, names.allowed())
        words = [program, "build", "--no-cache", *_NETWORKS[network], context]
        return machine.run(words, cgroup=machine.cgroup("commands"))

    with contextlib.closing(Wire(machine.node.namespace)) as wire:
        judge = Judge(lab, names, measured, wire, f"{program} {trees.version(machine.suite, program)}")
        _judge(machine_daemon, judge, f"RUN that connects by {network}", build)


def _judge(daemon: HostDaemon, judge: Judge, what: str, build: Callable[[str], Finished]) -> None:
    judge.allows(daemon, what, build)
    line = judge.refuses(daemon, what, build)
    assert line["process"] == "busybox"

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
from .names import POLICY, Names, policy
from .users import ROOT, ROOTLESS, User
from .wire import Wire

# seconds; the engine takes the step's container and network down after it
AT_ONCE = 1.0
# The engine's own, which is behind a bridge or, without root, behind slirp4netns or pasta; and the machine's.
_NETWORKS: dict[str, tuple[str, ...]] = {"its own network": (), "the host's network": ("--network=host",)}
# These two resolve names themselves for what is behind them, at these addresses.
_ROOTLESS_RESOLVERS = ("10.0.2.3", "169.254.1.1")


@pytest.fixture(scope="module")
def docker_daemon(lab: Lab, names: Names, docker: Dockerd) -> Iterator[HostDaemon]:
    with governed(lab, docker, POLICY, docker.machine.top) as result:
        yield result


@pytest.fixture(scope="module")
def machine_daemon(lab: Lab, names: Names, machine: Machine) -> Iterator[HostDaemon]:
    with governed(lab, machine, policy(*_ROOTLESS_RESOLVERS), machine.top) as result:
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

    _judge(docker_daemon, judge, f"RUN that connects in {network}, {builder}", build)


@pytest.mark.parametrize("network", _NETWORKS)
@pytest.mark.parametrize("user", [ROOT, ROOTLESS], ids=lambda user: user.name)
@pytest.mark.parametrize("program", ["podman", "buildah"])
def test_commands(
    lab: Lab,
    machine: Machine,
    machine_daemon: HostDaemon,
    names: Names,
    measured: Measured,
    program: str,
    user: User,
    network: str,
) -> None:
    def build(host: str) -> Finished:
        context = builds.CONNECT.context(machine, host, names.allowed())
        words = [program, *builds.BY_COMMAND, *_NETWORKS[network], context]
        return user.run(machine, machine.cgroup("commands"), *words)

    with contextlib.closing(Wire(machine.node.namespace)) as wire:
        engine = f"{program} {trees.version(machine.suite, program)}, {user.name}"
        judge = Judge(lab, names, measured, wire, engine)
        _judge(machine_daemon, judge, f"RUN that connects in {network}", build)


def _judge(daemon: HostDaemon, judge: Judge, what: str, build: Callable[[str], Finished]) -> None:
    judge.allows(daemon, what, build)
    line = judge.refuses(daemon, what, build, AT_ONCE)
    assert line["process"] == "busybox"

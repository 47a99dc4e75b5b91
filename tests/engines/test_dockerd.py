"""dockerd, governed in its control group: what it pulls, pushes and builds, by its own words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import builds
from .dockerd import Dockerd
from .judge import Judge
from .names import POLICY, Names, reference


@pytest.fixture(scope="module")
def daemon(lab: Lab, names: Names, docker: Dockerd) -> Iterator[HostDaemon]:
    with governed(lab, docker, POLICY, docker.cgroup) as result:
        yield result


@pytest.fixture(scope="module")
def base(docker: Dockerd, names: Names, daemon: HostDaemon) -> str:
    """The host of an image that dockerd has already."""
    host = names.allowed()
    docker.run("pull", reference(host)).check()
    return host


def test_pull(docker: Dockerd, daemon: HostDaemon, judge: Judge) -> None:
    def pull(host: str) -> Finished:
        return docker.run("pull", reference(host))

    judge.allows(daemon, "pull", pull)
    line = judge.refuses(daemon, "pull", pull)
    assert line["process"] == "dockerd"


def test_push(docker: Dockerd, daemon: HostDaemon, judge: Judge, base: str) -> None:
    def push(host: str) -> Finished:
        target = f"{host}/lab/pushed:1"
        docker.run("tag", reference(base), target).check()
        return docker.run("push", target)

    judge.allows(daemon, "push", push)
    judge.refuses(daemon, "push", push)


@pytest.mark.parametrize("builder", ["classic builder", "BuildKit"])
@pytest.mark.parametrize("what", builds.ALL)
def test_build(docker: Dockerd, daemon: HostDaemon, judge: Judge, base: str, what: str, builder: str) -> None:
    recipe, options = builds.ALL[what]
    env = {"DOCKER_BUILDKIT": str(int(builder == "BuildKit"))}

    def build(host: str) -> Finished:
        context = recipe.context(docker.machine, host, base)
        return docker.run("build", "--no-cache", *options, context, env=env)

    judge.allows(daemon, f"{what}, {builder}", build)
    judge.refuses(daemon, f"{what}, {builder}", build)

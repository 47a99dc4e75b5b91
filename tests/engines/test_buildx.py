"""`docker buildx` with a builder in a container, found as `builders:buildx` and governed from outside."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversarial.field import wait_line
from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import builds, buildx
from .buildx import Builder
from .dockerd import Dockerd
from .judge import Judge
from .names import POLICY, Names

_SCOPE = "builders:buildx"
_CONNECT = "build with RUN that connects"  # which is in the builder's control group too


@pytest.fixture(scope="module")
def daemon(lab: Lab, names: Names, docker: Dockerd) -> Iterator[HostDaemon]:
    with governed(lab, docker, POLICY, _SCOPE) as result:
        yield result


@pytest.fixture(scope="module")
def builder(lab: Lab, docker: Dockerd, daemon: HostDaemon) -> Iterator[Builder]:
    """One that is started when ram-ebpf runs already."""
    buildx.prepare(lab, docker)
    start = len(daemon.lines())
    with buildx.builder(docker, "lab") as result:
        for what in (f"{result.container} is governed", "device veth"):
            _wait_governed(daemon, start, what)
        yield result


def _wait_governed(daemon: HostDaemon, start: int, what: str) -> None:
    wait_line(
        daemon,
        start,
        lambda line: line["event"] == "scope-back" and what in line["explanation"],
        what,
        patience=10.0,
    )


@pytest.mark.parametrize("what", [*builds.ALL, _CONNECT])
def test_build(
    docker: Dockerd, daemon: HostDaemon, builder: Builder, names: Names, judge: Judge, what: str
) -> None:
    recipe, options = builds.ALL.get(what, (builds.CONNECT, ()))
    allow = ("--allow=network.host",) if options else ()

    def build(host: str) -> Finished:
        return builder.build(*options, *allow, recipe.context(docker.machine, host, names.allowed()))

    judge.allows(daemon, f"buildx {what}", build)
    line = judge.refuses(daemon, f"buildx {what}", build)
    assert line["scope"] == "builders buildx"


def test_push(docker: Dockerd, daemon: HostDaemon, builder: Builder, names: Names, judge: Judge) -> None:
    def push(host: str) -> Finished:
        context = builds.PLAIN.context(docker.machine, names.allowed(), "")
        return builder.build(f"--output=type=registry,name={host}/lab/pushed:1", context)

    judge.allows(daemon, "buildx build --output=type=registry", push)
    judge.refuses(daemon, "buildx build --output=type=registry", push)

"""A buildx builder in posture registries: its RUN steps use the network, and reach no registry."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversarial.field import wait_line
from tests.lab import topology
from tests.lab.docker_daemon import HostDaemon
from tests.lab.lab import Lab
from tests.lab.processes import Finished
from tests.lab.website import serving

from . import builds, buildx
from .builds import Recipe
from .buildx import Builder
from .dockerd import Dockerd
from .judge import Judge
from .names import POLICY, Names

_PORT = 8080
_POLICY = f"""\
{POLICY}denied: ["refused-*.registry.test"]
recognition:
  unknown: allow
scopes:
  - builders: buildx
    posture: registries
"""
_GET = "(busybox printf 'GET / HTTP/1.0\\r\\n\\r\\n'; busybox sleep 1)"
_FETCH = Recipe(f"FROM {{open}}\nRUN {_GET} | busybox nc -w 5 {topology.NOTALLOWED} {_PORT}\n")


@pytest.fixture(scope="module")
def daemon(lab: Lab, names: Names, docker: Dockerd) -> Iterator[HostDaemon]:
    daemon = HostDaemon(lab, docker, _POLICY, [])
    with daemon:
        try:
            yield daemon
        finally:
            status = daemon.terminate()
        assert status == 0, daemon.said()


@pytest.fixture(scope="module")
def builder(lab: Lab, docker: Dockerd, daemon: HostDaemon) -> Iterator[Builder]:
    buildx.prepare(lab, docker)
    start = len(daemon.lines())
    with buildx.builder(docker, "posture") as result:
        for what in (f"{result.container} is governed", "device veth"):
            wait_line(
                daemon,
                start,
                lambda line, what=what: line["event"] == "scope-back" and what in line["explanation"],  # type: ignore[misc]
                what,
                patience=10.0,
            )
        yield result


def test_step_that_fetches_something(
    lab: Lab, docker: Dockerd, daemon: HostDaemon, builder: Builder, names: Names
) -> None:
    with serving(lab.blocked.node, _PORT) as site:
        context = _FETCH.context(docker.machine, names.allowed(), names.allowed())
        built = builder.build(context).check()
        assert "<html>hello</html>" in built.stdout + built.stderr
        assert site.requests() == ["GET / HTTP/1.0"]


@pytest.mark.parametrize("what", [*builds.ALL, "build with RUN that connects"])
def test_build(
    docker: Dockerd, daemon: HostDaemon, builder: Builder, names: Names, judge: Judge, what: str
) -> None:
    recipe, options = builds.ALL.get(what, (builds.CONNECT, ()))
    allow = ("--allow=network.host",) if options else ()

    def build(host: str, other: str) -> Finished:
        return builder.build(*options, *allow, recipe.context(docker.machine, host, other))

    # One name: all allowed ones have the same address, and the line about a connection there names the last.
    judge.allows(daemon, f"buildx {what}, posture registries", lambda host: build(host, host))
    line = judge.refuses(
        daemon, f"buildx {what}, posture registries", lambda host: build(host, names.allowed())
    )
    assert (line["scope"], line["reason"]) == ("builders buildx", "denied-registry")

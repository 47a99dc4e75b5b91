"""Containers that start while ram-ebpf is away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import tcp_connect, wait_denied, wait_line
from tests.lab import docker_image, topology
from tests.lab.docker import RESOLVER, Container, Docker
from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab

pytestmark = pytest.mark.root

REPOSITORY = "lab/away"
IMAGE = f"cdn.allowed.registry.test/{REPOSITORY}:1"
SCOPE = "container:label=team=builds"
POLICY = f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}, {RESOLVER}]
"""


@pytest.fixture(scope="module")
def docker(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    directory = tmp_path_factory.mktemp("away")
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("programs")))
    with Docker(lab, directory, directory.name) as result:
        result.pull(IMAGE).check()
        yield result


def wait_governed(daemon: HostDaemon, container: Container) -> None:
    wanted = f"{container.cgroup} is governed"
    wait_line(
        daemon,
        0,
        lambda line: line["event"] == "scope-back" and wanted in line["explanation"],
        wanted,
        patience=10.0,
    )


def assert_refused(actor: Actor, daemon: HostDaemon) -> None:
    start = len(daemon.lines())
    with pytest.raises(PermissionError):
        tcp_connect(actor, topology.BLOCKED)
    assert wait_denied(daemon, start, topology.BLOCKED)["scope"] == "container label=team=builds"


def test_started_while_the_daemon_is_away(lab: Lab, docker: Docker, tmp_path: Path) -> None:
    """Whoever starts meanwhile is found by the next start, before that is ready."""
    first = HostDaemon(lab, docker, POLICY, [SCOPE])
    with first:
        old = docker.run(IMAGE, docker_image.WAIT, "old", {"team": "builds"})
        try:
            wait_governed(first, old)
            os.kill(first.pid, signal.SIGKILL)
            new = docker.run(IMAGE, docker_image.WAIT, "new", {"team": "builds"})
            try:
                with Actor(old.node(tmp_path / "old")) as actor, pytest.raises(PermissionError):
                    tcp_connect(actor, topology.BLOCKED)
                with governed(lab, docker, POLICY, SCOPE) as second:
                    for number, container in enumerate((old, new)):
                        with Actor(container.node(tmp_path / f"after-{number}")) as actor:
                            assert_refused(actor, second)
            finally:
                docker.remove(new)
        finally:
            docker.remove(old)

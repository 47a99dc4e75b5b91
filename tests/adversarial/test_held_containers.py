"""Containers that start while nobody asks what they are: what holds them is in the kernel."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from tests.adversarial.field import PORT, Sniffer, eventually, wait_denied, wait_line
from tests.lab import docker_image
from tests.lab.docker import RESOLVER, Container, Docker
from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab

pytestmark = pytest.mark.root

REPOSITORY = "lab/held"
IMAGE = f"cdn.allowed.registry.test/{REPOSITORY}:1"
MEANT = {"team": "builds"}
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
_TARGETS = tuple(f"10.77.0.{number}" for number in range(200, 208))
_A_WHILE = 1.5  # seconds, in which TCP tries twice


@pytest.fixture(scope="module")
def docker(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    directory = tmp_path_factory.mktemp("held")
    lab.blocked.node.add_addresses(*_TARGETS)
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("programs")))
    with Docker(lab, directory, directory.name) as result:
        result.pull(IMAGE).check()
        yield result


@pytest.fixture
def daemon(lab: Lab, docker: Docker) -> Iterator[HostDaemon]:
    with governed(lab, docker, POLICY, SCOPE) as result:
        yield result


class Watcher:
    """Which of the targets something has reached."""

    def __init__(self, lab: Lab) -> None:
        self._sniffer = Sniffer(lab.blocked.node)

    def reached(self) -> set[str]:
        """Since the last call."""
        there = {packet[16:20] for packet in self._sniffer.packets() if packet[0] >> 4 == 4}
        return {target for target in _TARGETS if socket.inet_aton(target) in there}

    def close(self) -> None:
        self._sniffer.close()


@pytest.fixture
def watcher(lab: Lab) -> Iterator[Watcher]:
    with contextlib.closing(Watcher(lab)) as result:
        yield result


@contextlib.contextmanager
def connecting(docker: Docker, labels: dict[str, str], *targets: str) -> Iterator[list[Container]]:
    """Containers whose first process connects to a target and ends."""
    containers = []
    try:
        for target in targets:
            containers.append(docker.run(IMAGE, ("/bin/musl", str(PORT), target), "", labels))
        yield containers
    finally:
        for container in containers:
            docker.remove(container)


def end_of(docker: Docker, container: Container) -> int:
    return int(docker.call("POST", f"/containers/{container.identifier}/wait")["StatusCode"])


def test_daemon_that_is_stopped(docker: Docker, daemon: HostDaemon, watcher: Watcher) -> None:
    """Nothing gets out, however long it takes to ask; later the governed are refused and the free pass."""
    start = len(daemon.lines())
    meant, free = _TARGETS[:4], _TARGETS[4]
    with contextlib.ExitStack() as stack:
        with daemon.paused():
            containers = stack.enter_context(connecting(docker, MEANT, *meant))
            (other,) = stack.enter_context(connecting(docker, {}, free))
            time.sleep(_A_WHILE)
            assert not watcher.reached()
        for container, target in zip(containers, meant, strict=True):
            assert end_of(docker, container) != 0
            assert wait_denied(daemon, start, target)["scope"] == SCOPE.replace(":", " ", 1)
        assert end_of(docker, other) == 0
        assert watcher.reached() == {free}


def test_daemon_that_was_killed(lab: Lab, docker: Docker, watcher: Watcher) -> None:
    """What starts meanwhile is held until the next start has found it."""
    first = HostDaemon(lab, docker, POLICY, [SCOPE])
    with first:
        quiet = docker.run(IMAGE, docker_image.WAIT, "quiet")
        try:
            assert quiet.run(["/bin/musl", str(PORT), _TARGETS[7]]).returncode == 0
            os.kill(first.pid, signal.SIGKILL)
            with (
                connecting(docker, MEANT, _TARGETS[0]) as (meant,),
                connecting(docker, {}, _TARGETS[1]) as (free,),
            ):
                time.sleep(_A_WHILE)
                assert watcher.reached() == {_TARGETS[7]}
                # Who was known is not in its way.
                assert quiet.run(["/bin/musl", str(PORT), _TARGETS[6]]).returncode == 0
                with governed(lab, docker, POLICY, SCOPE) as second:
                    wait_denied(second, 0, _TARGETS[0])
                    assert end_of(docker, meant) != 0
                    assert end_of(docker, free) == 0
                    assert watcher.reached() == {_TARGETS[6], _TARGETS[1]}
                    assert quiet.run(["/bin/musl", str(PORT), _TARGETS[7]]).returncode == 0
        finally:
            docker.remove(quiet)


def test_network_that_is_new(docker: Docker, daemon: HostDaemon, watcher: Watcher) -> None:
    """Its bridge holds before its first container runs."""
    created = docker.call("POST", "/networks/create", {"Name": "fresh", "Driver": "bridge"})
    containers = []
    try:
        for target in _TARGETS[:4]:
            argv = ("/bin/musl", str(PORT), target)
            containers.append(docker.run(IMAGE, argv, "", MEANT, network="fresh"))
        assert all(end_of(docker, container) for container in containers)
        assert not watcher.reached()
    finally:
        for container in containers:
            docker.remove(container)
        docker.call("DELETE", f"/networks/{created['Id']}")


def test_second_instance(lab: Lab, docker: Docker, daemon: HostDaemon) -> None:
    """It says that bridges are held already, and takes nothing off when it ends."""
    with governed(lab, docker, POLICY, "container:label=team=others") as second:
        wait_line(
            second,
            0,
            lambda line: line["event"] == "remark" and "holds new containers" in line["explanation"],
            "a remark on the bridge",
        )
        with connecting(docker, {"team": "others"}, _TARGETS[2]) as (container,):
            assert end_of(docker, container) != 0
    with connecting(docker, MEANT, _TARGETS[3]) as (container,):
        assert end_of(docker, container) != 0
    with connecting(docker, {}, _TARGETS[5]) as (container,):
        assert end_of(docker, container) == 0


def test_nothing_is_left(lab: Lab, docker: Docker) -> None:
    """After a clean end whoever starts is free."""
    with governed(lab, docker, POLICY, SCOPE):
        container = docker.run(IMAGE, docker_image.WAIT, "before")
    try:
        assert eventually(lambda: container.run(["/bin/musl", str(PORT), _TARGETS[6]]).returncode == 0)
        with connecting(docker, MEANT, _TARGETS[7]) as (free,):
            assert end_of(docker, free) == 0
    finally:
        docker.remove(container)

"""Scopes that are containers of a real dockerd, found by its API and followed as they come and go."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import PORT, eventually, tcp_connect, wait_denied, wait_line
from tests.adversarial.packets import ipv4, udp

from . import docker_image, topology
from .dns import Addresses
from .docker import RESOLVER, Container, Docker
from .docker_daemon import HostDaemon, governed
from .lab import Lab

pytestmark = pytest.mark.root

REPOSITORY = "lab/plain"
IMAGE = f"cdn.allowed.registry.test/{REPOSITORY}:1"
POLICY = f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}, {RESOLVER}]
"""
_ETH_P_ALL = 3
NAME, ADDRESS = "plain.allowed.registry.test", topology.MANY[20]


@pytest.fixture(scope="module")
def docker(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    directory = tmp_path_factory.mktemp("plain")
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("programs")))
    lab.dns.update({NAME: Addresses((ADDRESS,), 60)})
    with Docker(lab, directory, directory.name) as result:
        result.pull(IMAGE).check()
        yield result


@pytest.fixture(scope="module")
def daemon(lab: Lab, docker: Docker) -> Iterator[HostDaemon]:
    with governed(
        lab, docker, POLICY, "container:web", "container:label=team=builds", "builders:buildx"
    ) as result:
        yield result


@contextlib.contextmanager
def running(docker: Docker, daemon: HostDaemon, name: str, **more: str) -> Iterator[Container]:
    """A container that is governed."""
    start = len(daemon.lines())
    container = docker.run(IMAGE, docker_image.WAIT, name, more)
    try:
        wait_governed(daemon, start, f"{container.cgroup} is governed")
        wait_governed(daemon, start, "device veth")
        yield container
    finally:
        start = len(daemon.lines())
        docker.remove(container)
        wait_line(
            daemon, start, lambda line: line["event"] == "scope-gone", "that it has gone", patience=10.0
        )


def wait_governed(daemon: HostDaemon, start: int, text: str) -> None:
    wait_line(
        daemon,
        start,
        lambda line: line["event"] == "scope-back" and text in line["explanation"],
        text,
        patience=10.0,
    )


def assert_refused(container: Container, library: str = "musl") -> None:
    said = container.run([f"/bin/{library}", str(PORT), "blocked.registry.test"]).stdout
    assert f"{topology.BLOCKED} {errno.EPERM}" in said


def scope_of_refusal(daemon: HostDaemon, start: int) -> str:
    """One line stands for all addresses of the name."""
    wanted = {"event": "denied", "host": "blocked.registry.test"}
    line = wait_line(daemon, start, lambda line: wanted.items() <= line.items(), "the refusal")
    return str(line["scope"])


def test_scopes_that_are_not_there(daemon: HostDaemon) -> None:
    assert daemon.said().splitlines() == [
        "ram-ebpf: container web: is not there; it is governed as soon as it is",
        "ram-ebpf: container label=team=builds: is not there; it is governed as soon as it is",
        "ram-ebpf: builders buildx: is not there; it is governed as soon as it is",
    ]


@pytest.mark.parametrize("library", ["musl", "glibc"])
def test_container_by_its_name(docker: Docker, daemon: HostDaemon, library: str) -> None:
    """What its resolver, which is dockerd, is told opens the container's cgroup and its device."""
    with running(docker, daemon, "web") as container:
        start = len(daemon.lines())
        reached = container.run([f"/bin/{library}", str(PORT), NAME])
        assert (reached.returncode, reached.stderr) == (0, ""), reached
        assert_refused(container, library)
        assert scope_of_refusal(daemon, start) == "container web"


def test_container_by_its_label(docker: Docker, daemon: HostDaemon) -> None:
    with running(docker, daemon, "one", team="builds") as one, running(docker, daemon, "two", team="builds"):
        start = len(daemon.lines())
        assert_refused(one)
        assert scope_of_refusal(daemon, start) == "container label=team=builds"


@pytest.mark.parametrize(
    ("name", "command"),
    [
        pytest.param("buildx_buildkit_test0", docker_image.WAIT, id="by its name"),
        pytest.param("harmless", ("/bin/buildkitd", "infinity"), id="by what runs in it"),
    ],
)
def test_builder(docker: Docker, daemon: HostDaemon, name: str, command: tuple[str, ...]) -> None:
    start = len(daemon.lines())
    container = docker.run(IMAGE, command, name)
    try:
        wait_governed(daemon, start, f"{container.cgroup} is governed")
        wait_governed(daemon, start, "device veth")
        assert_refused(container)
        assert scope_of_refusal(daemon, start) == "builders buildx"
        reached = container.run(["/bin/musl", str(PORT), NAME])
        assert reached.returncode == 0, reached
    finally:
        docker.remove(container)


def test_other_containers_are_free(docker: Docker, daemon: HostDaemon) -> None:
    container = docker.run(IMAGE, docker_image.WAIT, "free", {"team": "others"})
    try:
        reached = container.run(["/bin/musl", str(PORT), "blocked.registry.test"])
        assert f"{topology.BLOCKED} 0" in reached.stdout
    finally:
        docker.remove(container)


def test_container_that_comes_back(docker: Docker, daemon: HostDaemon) -> None:
    for _ in range(3):
        with running(docker, daemon, "web") as container:
            assert_refused(container)


def test_packet_socket_in_a_container(docker: Docker, daemon: HostDaemon, tmp_path: Path) -> None:
    """Past the hooks of its control group, but not past its device."""
    target = "203.0.113.99"
    with running(docker, daemon, "web") as container, Actor(container.node(tmp_path / "inside")) as inside:
        start = len(daemon.lines())
        item = inside.socket(socket.AF_PACKET, socket.SOCK_DGRAM)
        item.bind(("eth0", 0x0800))
        packet = ipv4("172.18.0.2", target, 17, udp("172.18.0.2", target, PORT, b"x"))
        item.sendto(packet, ("eth0", 0x0800, 0, 1, b"\xff" * 6))
        line = wait_denied(daemon, start, target)
        assert (line["scope"], line["reason"]) == ("container web", "denied-unknown-address")
        with pytest.raises(PermissionError) as caught:
            tcp_connect(inside, topology.BLOCKED)
        assert caught.value.errno == errno.EPERM


def test_container_in_the_hosts_network(docker: Docker, daemon: HostDaemon) -> None:
    """It has no device of its own; its cgroup is governed."""
    start = len(daemon.lines())
    container = docker.run(IMAGE, docker_image.WAIT, "web", network="host")
    try:
        wait_governed(daemon, start, f"{container.cgroup} is governed")
        assert_refused(container)
        about = [line for line in daemon.lines()[start:] if "device" in line.get("explanation", "")]
        assert [line["event"] for line in about] in ([], ["remark"])
        wait_line(
            daemon,
            start,
            lambda line: (
                line["event"] == "remark" and "container web is in this host's" in line["explanation"]
            ),
            "a remark on its network",
        )
    finally:
        docker.remove(container)


def test_renamed_container(docker: Docker, daemon: HostDaemon) -> None:
    """Its name is what the policy says, so a rename takes it out, or brings it in."""
    container = docker.run(IMAGE, docker_image.WAIT, "other")
    try:
        start = len(daemon.lines())
        docker.call("POST", f"/containers/{container.identifier}/rename?name=web")
        wait_governed(daemon, start, f"{container.cgroup} is governed")
        assert_refused(container)
    finally:
        docker.remove(container)


def test_first_packet(lab: Lab, docker: Docker, daemon: HostDaemon) -> None:
    """Containers whose first process connects at once: before Docker says that they run."""
    targets = [f"10.77.0.{number}" for number in range(240, 244)]
    lab.blocked.node.add_addresses(*targets)
    start = len(daemon.lines())
    with Actor(docker.node) as watching:
        item = watching.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        item.bind(("eth0", _ETH_P_ALL))
        for number, target in enumerate(targets):
            command = ("/bin/musl", str(PORT), target)
            container = docker.run(IMAGE, command, f"quick-{number}", {"team": "builds"})
            docker.call("POST", f"/containers/{container.identifier}/wait")
            docker.remove(container)
        tcp_connect(watching, topology.BLOCKED)  # of nobody who is governed
        left = [data for data, _ in item.drain()]
    assert any(socket.inet_aton(topology.BLOCKED) in data for data in left), "the watcher sees nothing"
    needles = [socket.inet_aton(target) for target in targets]
    assert not [needle for needle in needles if any(needle in data for data in left)]
    assert not any(line["event"] == "unknown-device" for line in daemon.lines()[start:])


def test_free_container_is_held_for_a_moment_only(docker: Docker, daemon: HostDaemon) -> None:
    """It gets through, if it does try again."""
    container = docker.run(IMAGE, ("/bin/musl", str(PORT), topology.BLOCKED), "free")
    assert docker.call("POST", f"/containers/{container.identifier}/wait")["StatusCode"] == 0
    docker.remove(container)


def test_many_at_once(docker: Docker, daemon: HostDaemon) -> None:
    """All of them are governed, and all that end are let go of."""
    start = len(daemon.lines())
    with ThreadPoolExecutor(8) as pool:
        containers = list(
            pool.map(
                lambda number: docker.run(IMAGE, docker_image.WAIT, f"many-{number}", {"team": "builds"}),
                range(24),
            )
        )
        try:
            for container in containers:
                wait_governed(daemon, start, f"{container.cgroup} is governed")
            assert eventually(lambda: _count(daemon, start, "scope-back", "device veth") >= 24, 10.0)
            list(pool.map(assert_refused, containers))
        finally:
            list(pool.map(docker.remove, containers))
    assert eventually(lambda: _count(daemon, start, "scope-gone", "device veth") >= 24, 10.0)
    assert eventually(lambda: _count(daemon, start, "scope-gone", "was removed; it is") >= 24, 10.0)


def _count(daemon: HostDaemon, start: int, event: str, text: str) -> int:
    lines = daemon.lines()[start:]
    return sum(line["event"] == event and text in line["explanation"] for line in lines)

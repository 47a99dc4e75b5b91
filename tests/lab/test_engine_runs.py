"""An engine and what it runs, each in a posture of its own, by a real dockerd."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial.field import PORT, eventually, wait_line

from . import docker_image, topology
from .dns import Addresses
from .docker import NETWORK, RESOLVER, Docker
from .docker_daemon import HostDaemon
from .lab import Lab
from .processes import Finished
from .servers import aside

pytestmark = pytest.mark.root

REPOSITORY = "lab/runs"
IMAGE = f"cdn.allowed.registry.test/{REPOSITORY}:1"
KNOWN = "203.0.117.1"
NAME = "runs.allowed.registry.test"  # IPv4 only, as these containers are
POLICY = f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}, {RESOLVER}]
recognition:
  unknown: allow
scopes:
  - engine: docker
    runs: registries
"""


# The lab's dockerd has no default network, and BuildKit can use no other one but the host's.
_NETWORKS = {"classic builder": f"--network={NETWORK}", "BuildKit": "--network=host"}


@pytest.fixture(scope="module")
def docker(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    directory = tmp_path_factory.mktemp("runs")
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("programs")))
    lab.blocked.node.add_addresses(KNOWN)
    lab.dns.update({"registry.k8s.io": Addresses((KNOWN,), 60), NAME: Addresses((topology.MANY[21],), 60)})
    with Docker(lab, directory, directory.name, parent="docker") as result:
        yield result


@pytest.fixture(scope="module")
def daemon(lab: Lab, docker: Docker) -> Iterator[HostDaemon]:
    result = HostDaemon(lab, docker, POLICY, [])
    result.add_options("--cgroup-root", str(docker.top))
    with result:
        docker.pull(IMAGE).check()
        try:
            yield result
        finally:
            status = result.terminate()
        assert status == 0, result.said()


def test_daemon_is_strict_and_its_containers_are_not(docker: Docker, daemon: HostDaemon) -> None:
    """A container is governed from its first packet: its parent is, before it is made."""
    refused = docker.pull("blocked.registry.test/lab/hello:1")
    assert "operation not permitted" in refused.stderr
    first = docker.run(IMAGE, docker_image.WAIT, "first")
    try:
        assert eventually(lambda: _is_governed(daemon, docker))
        passed = first.run(["/bin/musl", "22", topology.BLOCKED])  # nobody listens, and nobody refuses
        assert f"{topology.BLOCKED} {errno.ECONNREFUSED}" in passed.stdout
        stopped = first.run(["/bin/musl", str(PORT), "registry.k8s.io"])
        assert f"{KNOWN} {errno.EPERM}" in stopped.stdout
        start = len(daemon.lines())
        quick = docker.run(IMAGE, ("/bin/musl", str(PORT), "registry.k8s.io"), "quick")
        assert docker.call("POST", f"/containers/{quick.identifier}/wait")["StatusCode"] != 0
        line = wait_line(
            daemon,
            start,
            lambda line: line["event"] == "denied" and line.get("host") == "registry.k8s.io",
            "the refusal",
        )
        assert line["scope"] == "what engine docker runs"
        assert line["reason"] == "denied-registry"
        docker.remove(quick)
    finally:
        docker.remove(first)


def build(docker: Docker, lab: Lab, directory: Path, builder: str, *lines: str) -> Finished:
    """`docker build`, by the classic builder or by BuildKit."""
    # Later ones leave BuildKit to a plugin of its own.
    command = aside.of_package("docker", "docker.io")
    (directory / "Dockerfile").write_text("\n".join(lines) + "\n", encoding="utf-8")
    env = {**command.env, **docker.env, "HOME": str(directory)}
    env["DOCKER_BUILDKIT"] = str(int(builder == "BuildKit"))
    return lab.client.run(
        [str(command.path), "build", "--no-cache", _NETWORKS[builder], str(directory)],
        cgroup=lab.client.services,
        env=env,
        timeout=60,
    )


@pytest.mark.parametrize("builder", ["classic builder", "BuildKit"])
def test_build_steps(lab: Lab, docker: Docker, daemon: HostDaemon, tmp_path: Path, builder: str) -> None:
    """They use the network, and reach no registry that is not allowed; images are the engine's business."""
    plain = f"FROM {IMAGE}"
    connect = f'RUN ["/bin/musl", "443", "{NAME}"]'
    build(docker, lab, tmp_path, builder, plain, connect).check()
    start = len(daemon.lines())
    refused = build(docker, lab, tmp_path, builder, plain, 'RUN ["/bin/musl", "443", "registry.k8s.io"]')
    assert not refused.ok
    line = wait_line(
        daemon,
        start,
        lambda line: line["event"] == "denied" and line.get("host") == "registry.k8s.io",
        "the refusal of a step",
    )
    assert (line["scope"], line["reason"]) == ("what engine docker runs", "denied-registry")
    start = len(daemon.lines())
    refused = build(docker, lab, tmp_path, builder, "FROM blocked.registry.test/lab/hello:1", "ENV A=1")
    assert "operation not permitted" in refused.stderr + refused.stdout
    line = wait_line(
        daemon,
        start,
        lambda line: line["event"] == "denied" and line.get("host") == "blocked.registry.test",
        "the refusal of an image",
    )
    assert (line["scope"], line["reason"]) == ("engine docker", "denied-unknown-address")


def test_container_in_the_hosts_network(docker: Docker, daemon: HostDaemon) -> None:
    """It has no device, and what governs it is above its cgroup."""
    start = len(daemon.lines())
    container = docker.run(IMAGE, ("/bin/musl", str(PORT), KNOWN), "on-the-host", network="host")
    try:
        assert docker.call("POST", f"/containers/{container.identifier}/wait")["StatusCode"] != 0
        line = wait_line(daemon, start, lambda line: line.get("address") == KNOWN, "the refusal")
        assert (line["event"], line["scope"]) == ("denied", "what engine docker runs")
    finally:
        docker.remove(container)


def _is_governed(daemon: HostDaemon, docker: Docker) -> bool:
    return any(
        line["event"] in ("scope-back", "ready") and f"{docker.top}/docker" in line["explanation"]
        for line in daemon.lines()
    )

"""An engine and what it runs, each in a posture of its own, by a real dockerd."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from tests.adversarial.field import PORT, eventually, wait_line

from . import docker_image, topology
from .dns import Addresses
from .docker import RESOLVER, Docker
from .docker_daemon import HostDaemon
from .lab import Lab

pytestmark = pytest.mark.root

REPOSITORY = "lab/runs"
IMAGE = f"cdn.allowed.registry.test/{REPOSITORY}:1"
KNOWN = "203.0.117.1"
POLICY = f"""\
version: 1
registries:
  - host: "*.allowed.registry.test"
    private: true
resolvers: [{Lab.resolver}, {RESOLVER}]
recognition:
  unknown: allow
scopes:
  - engine: docker
    runs: registries
"""


@pytest.fixture(scope="module")
def docker(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    directory = tmp_path_factory.mktemp("runs")
    lab.allowed.add_image(REPOSITORY, "1", docker_image.build(tmp_path_factory.mktemp("programs")))
    lab.blocked.node.add_addresses(KNOWN)
    lab.dns.update({"registry.k8s.io": Addresses((KNOWN,), 60)})
    with Docker(lab, directory, directory.name, parent="docker") as result:
        yield result


@pytest.fixture(scope="module")
def daemon(lab: Lab, docker: Docker) -> Iterator[HostDaemon]:
    result = HostDaemon(lab, docker, POLICY, [])
    result.add_options("--cgroup-root", str(docker.top))
    with result:
        try:
            yield result
        finally:
            status = result.terminate()
        assert status == 0, result.said()


def test_daemon_is_strict_and_its_containers_are_not(docker: Docker, daemon: HostDaemon) -> None:
    """A container is governed from its first packet: its parent is, before it is made."""
    docker.pull(IMAGE).check()
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


def _is_governed(daemon: HostDaemon, docker: Docker) -> bool:
    return any(
        line["event"] in ("scope-back", "ready") and f"{docker.top}/docker" in line["explanation"]
        for line in daemon.lines()
    )

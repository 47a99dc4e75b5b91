"""`docker ram` by a docker of the distribution, which is 20.10 on Debian 12: it has plugins and no hooks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.adversarial.field import eventually

from .docker import Docker
from .docker_authorization import ALLOWED, BLOCKED
from .docker_cli import DockerCli
from .docker_daemon import HostDaemon, governed
from .lab import Lab
from .servers import aside
from .test_responder import NAME, wait_responder

pytestmark = pytest.mark.root

POLICY = f"""\
version: 1
organization: acme
message: Ask platform@acme.example to allow it.
registries:
  - host: {ALLOWED}
    private: true
resolvers: [{Lab.resolver}]
"""


@pytest.fixture(scope="module")
def docker(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    directory = tmp_path_factory.mktemp("cli")
    with Docker(lab, directory, "cli") as docker:
        yield docker


@pytest.fixture(scope="module")
def daemon(lab: Lab, docker: Docker) -> Iterator[HostDaemon]:
    with governed(lab, docker, POLICY, docker.cgroup) as daemon:
        wait_responder(daemon)
        yield daemon


@pytest.fixture(scope="module")
def cli(lab: Lab, docker: Docker, daemon: HostDaemon, tmp_path_factory: pytest.TempPathFactory) -> DockerCli:
    program = aside.of_package("docker", "docker.io")
    directory = tmp_path_factory.mktemp("config")
    return DockerCli(lab, docker.node, directory, [str(program.path)], {**program.env, **docker.env})


def test_status(cli: DockerCli, docker: Docker) -> None:
    shown = cli.run("ram", "status").check().stdout.splitlines()
    assert shown[0].endswith("policy.yaml of acme")
    assert f"    {docker.cgroup}" in shown
    assert any(line.startswith("  responder: on, ") for line in shown)


def test_known_to_docker(cli: DockerCli) -> None:
    assert "\n  ram* " in cli.run("--help").check().stdout
    assert cli.run("ram", "--help").check().stdout.startswith("usage: docker ram ")
    assert cli.run("help", "ram").check().stdout.startswith("usage: docker ram ")


def test_explain(cli: DockerCli) -> None:
    assert cli.run("ram", "explain", ALLOWED).check().stdout.startswith("allowed in ")
    refused = cli.run("--log-level", "error", "ram", "explain", BLOCKED)
    assert refused.returncode == 1
    assert refused.stdout.startswith("REFUSED in ")


def test_refused_pull(cli: DockerCli, lab: Lab) -> None:
    """Without hooks it is to be asked for."""
    pulled = cli.on_terminal("pull", f"{BLOCKED}/{lab.image_name}")
    assert pulled.returncode == 1
    assert f"certificate is valid for {NAME}, not {BLOCKED}" in pulled.stdout
    assert "acme's" not in pulled.stdout

    def told() -> bool:
        return f"{BLOCKED} is not in the policy" in cli.run("ram", "explain", "--last").check().stdout

    assert eventually(told)
    (line,) = cli.run("ram", "events", "--last", "1").check().stdout.splitlines()
    assert f" DENIED {BLOCKED} (" in line
    assert f": {BLOCKED} is not in the policy" in line
    assert line.endswith(". Ask platform@acme.example to allow it.")


def test_follow(cli: DockerCli, docker: Docker, lab: Lab) -> None:
    process = docker.node.popen(
        [*cli.argv, "ram", "events", "--follow", "--last", "0", "--json"], env=cli.env, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        seen: list[dict[str, Any]] = []
        while not seen:  # until it follows
            cli.run("pull", f"{BLOCKED}/{lab.image_name}")
            os.set_blocking(process.stdout.fileno(), False)
            seen = [json.loads(line) for line in process.stdout]
        assert seen[0]["host"] == BLOCKED
    finally:
        os.killpg(process.pid, signal.SIGINT)
        docker.node.stop(process)

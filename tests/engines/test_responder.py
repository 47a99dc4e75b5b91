"""What engines print that are led to the refusal responder: docs/refusals.md has it as a table."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.docker_daemon import HostDaemon
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import trees
from .containerd import started
from .dockerd import Dockerd
from .judge import Judge
from .machine import Machine
from .measured import Measured
from .names import ANSWERED, Names, reference
from .trusting import answering, make_authority, trust, write_bundle
from .wire import Wire

NAME = "x509: certificate is valid for blocked-by-registry-access-policy.ask-platform.registry.test, not "
TEXT = "is blocked by acme's registry policy (rule: none). ask platform@registry.test to allow it."
Run = Callable[..., Finished]


@pytest.fixture(scope="module", params=[False, True], ids=["no authority", "authority"])
def trusting(request: pytest.FixtureRequest) -> bool:
    """Whether there is an organisation's authority, and clients trust it."""
    return bool(request.param)


@pytest.fixture(scope="module")
def authority(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(lab, tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def bundle(lab: Lab, machine: Machine, authority: Path, trusting: bool) -> str:
    """What clients trust."""
    return write_bundle(lab, machine, authority if trusting else None)


@pytest.fixture(scope="module")
def containerd(machine: Machine, bundle: str) -> Iterator[None]:
    with started(machine, {"SSL_CERT_FILE": bundle}):
        yield


@pytest.fixture(scope="module")
def daemon(
    lab: Lab, names: Names, machine: Machine, containerd: None, authority: Path, trusting: bool
) -> Iterator[HostDaemon]:
    scopes = [machine.cgroup(name) for name in ("commands", "containerd")]
    with answering(lab, machine, ANSWERED, authority if trusting else None, *scopes) as result:
        yield result


def last_line(result: Finished) -> Finished:
    """Prints it, for the table."""
    lines = (result.stdout + result.stderr).strip().splitlines()
    print(f"{result.seconds:.2f} s: {lines[-1] if lines else ''}", file=sys.stderr)
    assert "timeout" not in "".join(lines).lower()
    return result


@pytest.mark.parametrize("program", ["podman", "buildah", "skopeo", "ctr"])
def test_commands(
    lab: Lab,
    names: Names,
    measured: Measured,
    machine: Machine,
    daemon: HostDaemon,
    bundle: str,
    program: str,
    trusting: bool,
) -> None:
    words = {
        "podman": ("podman", "pull"),
        "buildah": ("buildah", "pull"),
        "skopeo": ("skopeo", "inspect"),
        "ctr": ("ctr", "images", "pull"),
    }[program]
    prefix = "docker://" if program == "skopeo" else ""

    def pull(host: str) -> Finished:
        env = {"SSL_CERT_FILE": bundle}
        argv = [*words, f"{prefix}{reference(host)}"]
        return last_line(machine.run(argv, cgroup=machine.cgroup("commands"), env=env))

    package = "containerd" if program == "ctr" else program
    with contextlib.closing(Wire(machine.node.namespace)) as wire:
        engine = f"{program} {trees.version(machine.suite, package)}, responder"
        judge = Judge(lab, names, measured, wire, engine)
        judge.refuses(
            daemon, "authority" if trusting else "no authority", pull, told=TEXT if trusting else NAME
        )


@pytest.fixture(scope="module")
def of_docker(
    lab: Lab, names: Names, docker: Dockerd, authority: Path, trusting: bool
) -> Iterator[HostDaemon]:
    with answering(lab, docker, ANSWERED, authority if trusting else None, docker.cgroup) as result:
        yield result


def test_docker(
    docker: Dockerd, of_docker: HostDaemon, judge: Judge, authority: Path, trusting: bool
) -> None:
    def pull(host: str) -> Finished:
        if trusting:
            trust(docker, host, authority)
        return last_line(docker.run("pull", reference(host)))

    what = "pull, authority" if trusting else "pull, no authority"
    judge.refuses(of_docker, what, pull, told=TEXT if trusting else NAME)


def test_docker_login(
    docker: Dockerd, of_docker: HostDaemon, names: Names, authority: Path, trusting: bool
) -> None:
    host = names.refused().host
    if trusting:
        trust(docker, host, authority)
    done = last_line(docker.run("login", "-u", "me", "-p", "secret", host))
    assert not done.ok
    assert ("403" if trusting else NAME + host) in done.stdout + done.stderr

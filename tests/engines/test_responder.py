"""What engines print that are led to the refusal responder: docs/refusals.md has it as a table."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.daemon import COMMAND
from tests.lab.docker_daemon import Engine, HostDaemon, governed
from tests.lab.lab import Lab
from tests.lab.processes import Finished
from tests.lab.test_responder import wait_responder

from . import trees
from .dockerd import Dockerd
from .judge import Judge
from .machine import Machine
from .measured import Measured
from .names import ANSWERED, Names, reference
from .wire import Wire

_ROOT = Path(__file__).parents[2]
_PATIENCE = 20.0
NAME = "x509: certificate is valid for blocked-by-registry-access-policy.ask-platform.registry.test, not "
TEXT = "is blocked by acme's registry policy (rule: none). ask platform@registry.test to allow it."
Run = Callable[..., Finished]


@pytest.fixture(scope="module", params=[False, True], ids=["no authority", "authority"])
def trusting(request: pytest.FixtureRequest) -> bool:
    """Whether there is an organisation's authority, and clients trust it."""
    return bool(request.param)


@pytest.fixture(scope="module")
def authority(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority") / "ca"
    lab.client.run([*COMMAND, "ca", "--directory", str(folder), "init"], cwd=_ROOT).check()
    return folder


@contextlib.contextmanager
def answering(lab: Lab, engine: Engine, authority: Path | None, *scopes: Path) -> Iterator[HostDaemon]:
    if authority is not None:
        lab.client.env["RAM_EBPF_CA"] = str(authority)
    try:
        with governed(lab, engine, ANSWERED, *scopes) as result:
            wait_responder(result)
            yield result
    finally:
        lab.client.env.pop("RAM_EBPF_CA", None)


@pytest.fixture(scope="module")
def bundle(lab: Lab, machine: Machine, authority: Path, trusting: bool) -> str:
    """What clients trust."""
    more = (authority / "ca.crt").read_bytes() if trusting else b""
    return str(machine.write(f"bundle-{trusting}.pem", lab.ca.read_bytes() + more))


@pytest.fixture(scope="module")
def containerd(machine: Machine, bundle: str) -> Iterator[None]:
    log = machine.share / "containerd.log"
    with log.open("w", encoding="utf-8") as file:
        env = {"SSL_CERT_FILE": bundle}
        argv = ["sh", "-c", f"echo $$ >{machine.share}/containerd.pid; exec containerd"]
        process = machine.popen(argv, machine.cgroup("containerd"), env=env, stdout=file)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not machine.run(["ctr", "version"]).ok:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        yield
    finally:
        # Itself, and not only who waits for it: the next one is to trust others.
        machine.run(["sh", "-c", f"kill $(cat {machine.share}/containerd.pid)"])
        machine.node.stop(process)


@pytest.fixture(scope="module")
def daemon(
    lab: Lab, names: Names, machine: Machine, containerd: None, authority: Path, trusting: bool
) -> Iterator[HostDaemon]:
    scopes = [machine.cgroup(name) for name in ("commands", "containerd")]
    with answering(lab, machine, authority if trusting else None, *scopes) as result:
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
    with answering(lab, docker, authority if trusting else None, docker.cgroup) as result:
        yield result


def trust(docker: Dockerd, host: str, authority: Path) -> None:
    """As `ram-ebpf ca install --host` does."""
    path = docker.machine.write("ca.crt", (authority / "ca.crt").read_bytes())
    folder = f"/etc/docker/certs.d/{host}"
    docker.machine.run(["sh", "-c", f"mkdir -p {folder} && cp {path} {folder}/"]).check()


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

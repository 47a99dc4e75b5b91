"""The organisation's authority, and engines that trust it: what `ram-ebpf ca` makes and installs.

The suites have no Python, so what `ca install` does is done by hand here: docs/refusals.md says what that is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.lab.daemon import COMMAND
from tests.lab.docker_daemon import Engine, HostDaemon, governed
from tests.lab.lab import Lab
from tests.lab.test_responder import wait_responder

from .dockerd import Dockerd
from .machine import Machine

_ROOT = Path(__file__).parents[2]


def make_authority(lab: Lab, directory: Path) -> Path:
    """Has `ram-ebpf ca init` make one; its directory."""
    folder = directory / "ca"
    lab.client.run([*COMMAND, "ca", "--directory", str(folder), "init"], cwd=_ROOT).check()
    return folder


def write_bundle(lab: Lab, machine: Machine, authority: Path | None) -> str:
    """The path of a file with all that clients are to trust, for SSL_CERT_FILE."""
    more = (authority / "ca.crt").read_bytes() if authority is not None else b""
    name = "trusted.pem" if authority is None else "trusted-with-authority.pem"
    return str(machine.write(name, lab.ca.read_bytes() + more))


def trust(docker: Dockerd, host: str, authority: Path) -> None:
    """As `ca install --host`: a dockerd that runs has read everybody's authorities already."""
    path = docker.machine.write("ca.crt", (authority / "ca.crt").read_bytes())
    folder = f"/etc/docker/certs.d/{host}"
    docker.machine.run(["sh", "-c", f"mkdir -p {folder} && cp {path} {folder}/"]).check()


@contextlib.contextmanager
def answering(
    lab: Lab, engine: Engine, policy: str, authority: Path | None, *scopes: Path | str
) -> Iterator[HostDaemon]:
    """ram-ebpf with a responder that is ready, and signs by the authority if there is one."""
    if authority is not None:
        lab.client.env["RAM_EBPF_CA"] = str(authority)
    try:
        with governed(lab, engine, policy, *scopes) as result:
            wait_responder(result)
            yield result
    finally:
        lab.client.env.pop("RAM_EBPF_CA", None)

"""A container that asks for a name with its first packet: a query that is lost costs it five seconds."""

from __future__ import annotations

import pytest

from tests.lab.docker_daemon import governed
from tests.lab.lab import Lab

from .dockerd import Dockerd
from .names import POLICY, Names, reference

SOON = 3.0  # seconds more than without ram-ebpf; a connection that is held is tried again after one


@pytest.mark.parametrize("label", ["team=builds", "team=others"], ids=["governed", "free"])
def test_first_query(lab: Lab, names: Names, docker: Dockerd, label: str) -> None:
    image = reference(names.allowed())
    docker.run("pull", image).check()
    step = f"busybox nc -w 20 {names.allowed()} 443 </dev/null"
    free = docker.run("run", "--rm", image, "sh", "-c", step).check().seconds
    with governed(lab, docker, POLICY, "container:label=team=builds"):
        held = docker.run("run", "--rm", f"--label={label}", image, "sh", "-c", step).check().seconds
    assert held - free < SOON, f"{held:.1f} s, {free:.1f} s without ram-ebpf"

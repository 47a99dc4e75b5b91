"""containerd and its ctr. Which of them connects is a matter of the version, so both are governed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import trees
from .containerd import started
from .judge import Judge
from .machine import Machine
from .measured import Measured
from .names import POLICY, Names, reference
from .wire import Wire

_CONNECTS = {"bookworm": "ctr", "trixie": "ctr", "sid": "containerd"}


@pytest.fixture(scope="module")
def containerd(machine: Machine) -> Iterator[None]:
    with started(machine):
        yield


@pytest.fixture(scope="module")
def daemon(lab: Lab, names: Names, machine: Machine, containerd: None) -> Iterator[HostDaemon]:
    scopes = [machine.cgroup(name) for name in ("commands", "containerd")]
    with governed(lab, machine, POLICY, *scopes) as result:
        yield result


def test_ctr(lab: Lab, names: Names, measured: Measured, machine: Machine, daemon: HostDaemon) -> None:
    def ctr(*words: str) -> Finished:
        return machine.run(["ctr", *words], cgroup=machine.cgroup("commands"))

    base = reference(names.allowed())
    ctr("images", "pull", base).check()

    def pull(host: str) -> Finished:
        return ctr("images", "pull", reference(host))

    def push(host: str) -> Finished:
        return ctr("images", "push", f"{host}/lab/pushed:1", base)

    with contextlib.closing(Wire(machine.node.namespace)) as wire:
        judge = Judge(lab, names, measured, wire, f"ctr {trees.version(machine.suite, 'containerd')}")
        for what, action in {"pull": pull, "push": push}.items():
            judge.allows(daemon, what, action)
            line = judge.refuses(daemon, what, action)
            assert line["process"] == _CONNECTS[machine.suite]

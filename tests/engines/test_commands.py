"""Engines without a daemon, podman, buildah and skopeo, and what they build, in a governed control group."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import pytest

from tests.lab.docker_daemon import HostDaemon, governed
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import builds, trees
from .judge import Judge
from .machine import Machine
from .measured import Measured
from .names import POLICY, Names, reference
from .users import ROOT, ROOTLESS, User
from .wire import Wire

_PROGRAMS = ("podman", "buildah")
Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def daemon(lab: Lab, names: Names, machine: Machine) -> Iterator[HostDaemon]:
    with governed(lab, machine, POLICY, machine.cgroup("commands")) as result:
        yield result


@pytest.fixture
def program(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[ROOT, ROOTLESS], ids=lambda user: user.name)
def user(request: pytest.FixtureRequest) -> User:
    assert isinstance(request.param, User)
    return request.param


@pytest.fixture
def judge(
    lab: Lab, names: Names, measured: Measured, machine: Machine, program: str, user: User
) -> Iterator[Judge]:
    engine = f"{program} {trees.version(machine.suite, program)}, {user.name}"
    with contextlib.closing(Wire(machine.node.namespace)) as wire:
        yield Judge(lab, names, measured, wire, engine)


@pytest.fixture
def run(machine: Machine, user: User) -> Run:
    """Runs a command in the governed control group."""
    return functools.partial(user.run, machine, machine.cgroup("commands"))


@pytest.mark.parametrize("program", _PROGRAMS, indirect=True)
def test_pull(run: Run, daemon: HostDaemon, judge: Judge, program: str) -> None:
    def pull(host: str) -> Finished:
        return run(program, "pull", reference(host))

    judge.allows(daemon, "pull", pull)
    line = judge.refuses(daemon, "pull", pull)
    assert line["process"] == program


@pytest.mark.parametrize("program", _PROGRAMS, indirect=True)
def test_push(run: Run, daemon: HostDaemon, judge: Judge, names: Names, program: str) -> None:
    base = reference(names.allowed())
    run(program, "pull", base).check()

    def push(host: str) -> Finished:
        return run(program, "push", base, f"{host}/lab/pushed:1")

    judge.allows(daemon, "push", push)
    judge.refuses(daemon, "push", push)


@pytest.mark.parametrize("program", _PROGRAMS, indirect=True)
@pytest.mark.parametrize("what", builds.ALL)
def test_build(
    machine: Machine,
    run: Run,
    daemon: HostDaemon,
    judge: Judge,
    names: Names,
    program: str,
    what: str,
) -> None:
    recipe, options = builds.ALL[what]

    def build(host: str) -> Finished:
        context = recipe.context(machine, host, names.allowed())
        return run(program, *builds.BY_COMMAND, *options, context)

    judge.allows(daemon, what, build)
    judge.refuses(daemon, what, build)


@pytest.mark.parametrize("program", ["skopeo"], indirect=True)
def test_skopeo(run: Run, daemon: HostDaemon, judge: Judge, user: User, program: str) -> None:
    layout = f"oci:/tmp/skopeo-{user.name}:1"

    def pull(host: str) -> Finished:
        return run(program, "copy", f"docker://{reference(host)}", layout)

    def push(host: str) -> Finished:
        return run(program, "copy", layout, f"docker://{host}/lab/pushed:1")

    def inspect(host: str) -> Finished:
        return run(program, "inspect", f"docker://{reference(host)}")

    for what, action in {"copy from": pull, "copy to": push, "inspect": inspect}.items():
        judge.allows(daemon, what, action)
        judge.refuses(daemon, what, action)

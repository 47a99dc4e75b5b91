"""The lab, the engines in it, and the table of what was measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.lab.fixtures import lab
from tests.lab.lab import Lab

from . import trees
from .dockerd import Dockerd
from .judge import Judge
from .machine import Machine
from .measured import Measured
from .names import Names
from .wire import Wire

__all__ = ["lab"]

_measured = Measured()


@pytest.fixture(scope="session")
def measured() -> Measured:
    return _measured


@pytest.fixture(scope="session")
def names(lab: Lab) -> Names:
    return Names(lab)


@pytest.fixture(scope="session", params=trees.SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian suite that the engines are of."""
    return str(request.param)


@pytest.fixture(scope="session")
def docker(lab: Lab, suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dockerd]:
    name = f"docker-{suite}"
    with Machine(lab, tmp_path_factory.mktemp(name), suite, name) as machine, Dockerd(machine) as result:
        yield result


@pytest.fixture(scope="session")
def machine(lab: Lab, suite: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """One without a dockerd."""
    name = f"plain-{suite}"
    with Machine(lab, tmp_path_factory.mktemp(name), suite, name) as result:
        yield result


@pytest.fixture(scope="session")
def judge(lab: Lab, names: Names, measured: Measured, docker: Dockerd) -> Iterator[Judge]:
    with contextlib.closing(Wire(docker.node.namespace)) as wire:
        version = trees.version(docker.machine.suite, "docker.io")
        yield Judge(lab, names, measured, wire, f"docker {version}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how long it took."""
    if _measured.rows:
        terminalreporter.section("seconds")
        for line in _measured.table():
            terminalreporter.write_line(line)

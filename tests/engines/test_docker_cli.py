"""`docker ram` by three docker commands, and what each prints under a pull that was refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.docker_cli import DockerCli
from tests.lab.docker_daemon import HostDaemon
from tests.lab.lab import Lab

from . import trees
from .dockerd import Dockerd
from .names import ANSWERED, MESSAGE, Names, reference
from .refusal_lines import NAME_IS
from .trusting import answering

_WITHOUT_HOOKS = "bookworm"  # docker 20.10; hooks are there since 26.1
# What would be a template for docker is to be printed as it is.
_TOLD = "{{.Name}} {{{arg . 0}}} grüße. "
_POLICY = ANSWERED.replace(f"message: {MESSAGE}", f'message: "{_TOLD}{MESSAGE}"')


@pytest.fixture(scope="module")
def daemon(lab: Lab, names: Names, docker: Dockerd) -> Iterator[HostDaemon]:
    with answering(lab, docker, _POLICY, None, docker.cgroup) as result:
        yield result


@pytest.fixture(scope="module")
def cli(lab: Lab, docker: Dockerd, daemon: HostDaemon, tmp_path_factory: pytest.TempPathFactory) -> DockerCli:
    """The suite's, with its libraries, on the machine that the tests run on: the suite has no Python."""
    tree = trees.tree(docker.machine.suite)
    (loader,) = (tree / "usr").glob("lib*/ld-linux-*.so.*")
    libraries = ":".join(str(path) for path in (tree / "usr/lib").glob("*-linux-gnu*"))
    argv = [str(loader), "--library-path", libraries, str(tree / "usr/bin/docker")]
    return DockerCli(lab, docker.node, tmp_path_factory.mktemp("config"), argv, docker.env)


def explanation(host: str) -> str:
    said = f"Access to {host} is blocked by acme's registry policy: {host} is not in the policy."
    return f"    {said}\n    {_TOLD}{MESSAGE}\n"


@pytest.fixture
def hooks(docker: Dockerd) -> bool:
    return docker.machine.suite != _WITHOUT_HOOKS


def test_status(cli: DockerCli, docker: Dockerd) -> None:
    shown = cli.run("ram", "status").check().stdout
    assert "policy.yaml of acme" in shown
    assert str(docker.cgroup) in shown
    assert cli.run("ram", "--help").check().stdout.startswith("usage: docker ram ")
    assert cli.run("help", "ram").check().stdout.startswith("usage: docker ram ")


@pytest.mark.parametrize("command", ["pull", "run", "create", "image pull"])
def test_refused(cli: DockerCli, names: Names, hooks: bool, command: str) -> None:
    target = names.refused()
    said = cli.on_terminal(*command.split(), reference(target.host))
    assert said.returncode != 0
    assert f"{NAME_IS}, not {target.host}" in said.stdout
    assert (explanation(target.host) in said.stdout) == hooks, said.stdout
    assert f"{target.host} is not in the policy" in cli.run("ram", "explain", "--last").check().stdout


def test_refused_push(cli: DockerCli, names: Names, hooks: bool) -> None:
    cli.run("pull", reference(host := names.allowed())).check()
    target = names.refused()
    cli.run("tag", reference(host), reference(target.host)).check()
    said = cli.on_terminal("push", reference(target.host))
    assert said.returncode != 0
    assert (explanation(target.host) in said.stdout) == hooks, said.stdout


def test_refused_build(cli: DockerCli, names: Names, hooks: bool, tmp_path: Path) -> None:
    """By the classic builder: after a plugin that failed, as buildx, hooks are called from 29.3 on alone."""
    target = names.refused()
    (tmp_path / "Dockerfile").write_text(f"FROM {reference(target.host)}\n", encoding="utf-8")
    said = cli.on_terminal("build", str(tmp_path), env={"DOCKER_BUILDKIT": "0"})
    assert said.returncode != 0
    assert (explanation(target.host) in said.stdout) == hooks, said.stdout


def test_nothing_for_what_was_not_refused(cli: DockerCli, names: Names) -> None:
    cli.run("pull", reference(names.refused().host))
    host = names.allowed()
    for words in (("pull", reference(host)), ("pull", f"{host}/lab/none:1"), ("pull", "NOT/valid")):
        said = cli.on_terminal(*words).stdout
        assert "What's next" not in said
        assert "acme" not in said


def test_where_it_is_not_wanted(cli: DockerCli, names: Names) -> None:
    said = cli.run("pull", reference(names.refused().host))  # no terminal
    assert "acme" not in said.stdout + said.stderr
    said = cli.on_terminal("pull", reference(names.refused().host), env={"DOCKER_CLI_HOOKS": "false"})
    assert "acme" not in said.stdout


def test_what_it_costs(
    cli: DockerCli, names: Names, hooks: bool, record_property: Callable[[str, object], None]
) -> None:
    """The quickest of five each: a busy machine is no news about us."""
    seconds = {}
    for wanted in ("true", "false"):
        pulls = [
            cli.on_terminal("pull", reference(names.refused().host), env={"DOCKER_CLI_HOOKS": wanted})
            for _ in range(5)
        ]
        seconds[wanted] = round(min(pull.seconds for pull in pulls), 2)
    record_property("seconds", json.dumps(seconds))
    print(f"a refused pull takes {seconds['true']} s with the hook, {seconds['false']} s without")
    assert seconds["true"] - seconds["false"] < 1.0 * hooks + 0.5

"""`docker ram` as docker calls it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from ram_ebpf import __version__
from ram_ebpf.cli import docker_hook, events, explain  # noqa: F401 (before nobody may read them)
from ram_ebpf.cli.docker_ram import Docker, main, own_words
from ram_ebpf.daemon import control
from tests.unit.test_wheel import section


def test_metadata(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docker-cli-plugin-metadata"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["SchemaVersion"] == "0.1.0"  # the only one that docker before 28.4 takes
    assert data["Vendor"]
    assert data["ShortDescription"]
    assert data["Version"] == __version__


def test_program_has_the_name_that_docker_looks_for() -> None:
    assert section("project.scripts")["docker-ram"] == "ram_ebpf.cli.docker_ram:main"


@pytest.mark.parametrize(
    ("words", "own"),
    [
        (["ram", "status"], ["status"]),
        (["--context", "ram", "ram", "status"], ["status"]),
        (["-H", "unix:///x", "-D", "ram", "explain", "ghcr.io"], ["explain", "ghcr.io"]),
        (["--host=unix:///x", "--tls", "ram", "events", "--last", "3"], ["events", "--last", "3"]),
        (["ram", "explain", "ram"], ["explain", "ram"]),
        (["ram", "-h"], ["-h"]),
        (["help", "ram"], ["--help"]),
        (["help", "ram", "events"], ["events", "--help"]),
        (["--help", "ram"], ["--help"]),
        (["status"], ["status"]),
        (["--config"], []),
        ([], []),
    ],
)
def test_words_of_docker_itself(words: list[str], own: list[str]) -> None:
    assert own_words(words) == own


@pytest.mark.parametrize("words", [["ram", "--help"], ["help", "ram"], ["-D", "ram", "--help"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: docker ram ")
    for verb in ("status", "explain", "events"):
        assert f"\n    {verb} " in shown


@pytest.mark.parametrize("words", [["ram"], ["ram", "run"], ["ram", "nonsense"], ["__complete", "ram"], []])
def test_what_is_no_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: docker ram ")


@pytest.mark.parametrize("verb", [["status"], ["explain", "ghcr.io"], ["explain", "--last"], ["events"]])
def test_no_instance(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ram_ebpf.daemon.control.ask_all.__defaults__", (tmp_path / "none", 1.0))
    assert main(["ram", *verb]) == os.EX_UNAVAILABLE
    assert "no instance of ram-ebpf runs here" in capsys.readouterr().err


def as_nobody(directory: Path, words: list[str]) -> tuple[int, str, str]:
    """Exit status and what it says, of a process of its own, as nobody comes back from being nobody."""
    read, write = os.pipe()
    complaints, complain = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            control.ask_all.__defaults__ = (directory, 1.0)
            os.setgroups([])
            os.setresuid(65534, 65534, 65534)
            with os.fdopen(write, "w") as sys.stdout, os.fdopen(complain, "w") as sys.stderr:
                code = main(words)
            os._exit(code)
        os._exit(1)
    os.close(write)
    os.close(complain)
    with os.fdopen(read) as stdout, os.fdopen(complaints) as stderr:
        said, complained = stdout.read(), stderr.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said, complained


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """As the daemon makes it."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    return path


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
@pytest.mark.parametrize("verb", [["status"], ["explain", "ghcr.io"], ["events", "--follow"]])
def test_somebody_who_may_not_ask(verb: list[str], directory: Path) -> None:
    status, _, complained = as_nobody(directory, ["ram", *verb])
    assert status == os.EX_NOPERM
    assert complained == "ram-ebpf: needs root, to ask the daemon: run it with sudo\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_hook_of_somebody_who_may_not_ask(directory: Path) -> None:
    request = json.dumps({"RootCmd": "pull", "CommandError": "connect: operation not permitted"})
    status, said, complained = as_nobody(directory, ["ram", "docker-cli-plugin-hooks", request])
    assert (status, json.loads(said), complained) == (0, {"Type": 0, "Template": ""}, "")


@pytest.mark.parametrize("abstract", [True, False])
def test_following_ends_when_docker_closes_its_socket(
    abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"@docker_cli_test_{os.getpid()}" if abstract else str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name[1:]}" if abstract else name)
        listener.listen()
        monkeypatch.setenv("DOCKER_CLI_PLUGIN_SOCKET", name)
        with contextlib.closing(Docker()) as docker:
            connection, _ = listener.accept()
            with connection:
                assert docker.pause(0.01)
            assert not docker.pause(10)


def test_socket_that_nobody_listens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CLI_PLUGIN_SOCKET", "@docker_cli_nobody")
    with contextlib.closing(Docker()) as docker:
        assert docker.pause(0.01)

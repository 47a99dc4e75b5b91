"""`ram-ebpf docker-plugin`: the link for docker, and nobody else's file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from ram_ebpf.cli.docker_plugin import MissingProgramError, program
from ram_ebpf.cli.main import main


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program, beside ram-ebpf."""
    path = tmp_path / "bin" / "docker-ram"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n", encoding="ascii")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "ram-ebpf")])
    return path


@pytest.fixture
def link(tmp_path: Path) -> Path:
    return tmp_path / "plugins" / "docker-ram"


def call(verb: str, link: Path) -> int:
    return main(["docker-plugin", "--directory", str(link.parent), verb])


def test_install_and_uninstall(target: Path, link: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("install", link) == 0
    assert link.readlink() == target
    first = capsys.readouterr().out
    assert first.startswith(f"installed {link}\n")
    assert call("install", link) == 0
    assert link.readlink() == target
    assert capsys.readouterr().out.startswith(f"{link} is installed already\n")
    assert call("uninstall", link) == 0
    assert not link.is_symlink()
    assert capsys.readouterr().out == f"removed {link}\n"
    assert call("uninstall", link) == 0
    assert capsys.readouterr().out == f"{link} is not installed\n"


def test_what_it_says_to_add_is_json(target: Path, link: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("install", link)
    settings = capsys.readouterr().out.splitlines()[-2:]
    data = json.loads("{" + "".join(settings) + "}")
    assert data["features"] == {"hooks": "true"}
    assert {"pull", "push", "build", "run"} <= set(data["plugins"]["ram"]["hooks"].split(","))


@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_what_is_not_ours_stays(
    what: str, target: Path, link: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link.parent.mkdir()
    other = tmp_path / "other" / "docker-ram"
    if what == "file":
        link.write_text("theirs", encoding="ascii")
    elif what == "directory":
        link.mkdir()
    else:
        other.parent.mkdir()
        other.write_text("theirs", encoding="ascii")
        link.symlink_to(other)
    before = link.lstat()
    for verb in ("install", "uninstall"):
        assert call(verb, link) == os.EX_CANTCREAT
        assert str(link) in capsys.readouterr().err
        assert link.lstat() == before


def test_link_of_an_environment_that_is_gone(target: Path, link: Path, tmp_path: Path) -> None:
    link.parent.mkdir()
    link.symlink_to(tmp_path / "gone" / "docker-ram")
    assert call("install", link) == 0
    assert link.readlink() == target
    target.unlink()
    target.with_name("docker-ram").write_text("", encoding="ascii")
    target.chmod(0o755)
    assert call("uninstall", link) == 0


def test_for_oneself(
    target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    assert main(["docker-plugin", "--user", "install"]) == 0
    assert (tmp_path / "config" / "cli-plugins" / "docker-ram").readlink() == target
    monkeypatch.delenv("DOCKER_CONFIG")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert main(["docker-plugin", "--user", "install"]) == 0
    assert (tmp_path / "home" / ".docker" / "cli-plugins" / "docker-ram").readlink() == target


def test_directory_that_is_none(target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plugins").write_text("", encoding="ascii")
    assert call("install", tmp_path / "plugins" / "docker-ram") == os.EX_CANTCREAT
    assert "use sudo, or --user" in capsys.readouterr().err


def test_program_is_missing(
    tmp_path: Path, link: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "ram-ebpf")])
    monkeypatch.setattr("ram_ebpf.cli.docker_plugin.sysconfig.get_path", lambda name: str(tmp_path))
    with pytest.raises(MissingProgramError):
        program()
    assert call("install", link) == os.EX_UNAVAILABLE
    assert "install the package anew" in capsys.readouterr().err
    assert not link.parent.exists()

"""The command as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ram_ebpf import __version__
from ram_ebpf.cli.main import main


def leaves(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert leaves("--version") == 0
    assert capsys.readouterr().out == f"ram-ebpf {__version__}\n"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert leaves("--help") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: ram-ebpf ")
    assert shown.err == ""
    for verb in ("run", "check"):
        assert f"\n    {verb} " in shown.out


@pytest.mark.parametrize("verb", ["run", "check", "doctor"])
def test_help_of_a_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert leaves(verb, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: ram-ebpf {verb} ")


def test_help_names_each_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    leaves("run", "--help")
    text = " ".join(capsys.readouterr().out.split())
    for status in (
        "0 after SIGTERM",
        "69 nothing",
        "70 the kernel",
        "71 no process",
        "75 another",
        "77 not root",
        "78 the policy",
    ):
        assert status in text


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("--nonsense",),
        ("run", "--nonsense"),
        ("run", "policy.yaml"),
        ("run", "--log-format", "xml"),
        ("run", "--scope"),
    ],
)
def test_wrong_arguments(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert leaves(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: ram-ebpf ")


def test_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    assert "default policy: ok" in capsys.readouterr().out


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ram_ebpf", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"ram-ebpf {__version__}\n"

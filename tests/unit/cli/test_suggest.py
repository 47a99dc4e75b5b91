"""`ram-ebpf suggest`: from a running instance, or from what is on disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.cli.main import main
from ram_ebpf.daemon import kept_refusals
from ram_ebpf.daemon.kept_refusals import Keeper, told
from ram_ebpf.policy.loader import load_policy
from ram_ebpf.suggestions.refused import Refused
from ram_ebpf.suggestions.summary import Forgotten
from tests.unit.instance import replying
from tests.unit.suggestions.entries import refused

DAY = 86400


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing runs."""
    monkeypatch.setattr("ram_ebpf.daemon.control.ask_all.__defaults__", (tmp_path / "run", 5.0))
    monkeypatch.setattr(kept_refusals.load_all, "__defaults__", (tmp_path / "state",))


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\nmode: audit\nregistries:\n    - docker-hub\n")
    return path


def now(host: str, age: int = 0, **changes: Any) -> Refused:
    then = int(time.time()) - age
    return refused(host, first=then, last=then, **changes)


def keep(policy: Path | None, directory: Path, *entries: Refused) -> None:
    keeper = Keeper(None if policy is None else str(policy), directory)
    keeper.save(entries, Forgotten())
    keeper.close()


def test_from_disk(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(policy, tmp_path / "state", now("ghcr.io"), now("new.example", 2 * DAY, count=4))
    assert main(["suggest"]) == 0
    shown = capsys.readouterr().out
    # As deep as the items that are there.
    assert [line for line in shown.splitlines() if "#" not in line] == [
        "    - host: new.example",
        "    - ghcr",
    ]
    policy.write_text(policy.read_text() + shown)
    assert len(load_policy(policy).registries) == 3
    assert main(["suggest"]) == 0
    shown = capsys.readouterr().out
    assert all(line.startswith("    #") for line in shown.splitlines())
    assert "ghcr.io: ghcr.io (ghcr) allows it" in shown


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--since", "1d"], ["ghcr"]),
        (["--since", "3d"], [{"host": "new.example"}, "ghcr"]),
        (["--min-count", "2"], [{"host": "new.example"}]),
        (["--since", "1h", "--min-count", "2"], []),
    ],
)
def test_options(
    policy: Path, tmp_path: Path, options: list[str], expected: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    keep(policy, tmp_path / "state", now("ghcr.io"), now("new.example", 2 * DAY, count=4))
    assert main(["suggest", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out)["registries"] == expected


@pytest.fixture
def instance(policy: Path, tmp_path: Path) -> Iterator[list[Refused]]:
    """What an instance has refused that answers on a real control socket."""
    entries = [now("quay.io")]

    with replying(tmp_path / "run", lambda request: told(str(policy), entries, Forgotten())):
        yield entries


def test_a_running_instance_knows_better(
    instance: list[Refused], policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(policy, tmp_path / "state", now("ghcr.io"))
    assert main(["suggest", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["registries"] == ["quay"]


def test_another_policy_than_the_running_ones(
    instance: list[Refused], policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("version: 1\nregistries: [quay]\n")
    keep(other, tmp_path / "state", now("ghcr.io"))
    assert main(["suggest", "--policy", str(other)]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "#" not in line] == ["  - ghcr"]


def test_several_policies(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(policy, tmp_path / "state", now("ghcr.io"))
    keep(None, tmp_path / "state", now("quay.io"))
    assert main(["suggest"]) == os.EX_USAGE
    assert "the built-in policy" in capsys.readouterr().err
    assert main(["suggest", "--policy", str(policy), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["registries"] == ["ghcr"]


def test_the_built_in_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(None, tmp_path / "state", now("quay.io"), now("registry-1.docker.io"))
    assert main(["suggest", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["registries"] == ["quay"]
    assert [its["subject"] for its in found["withheld"]] == ["registry-1.docker.io"]


def test_nothing_is_known(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suggest"]) == os.EX_UNAVAILABLE
    assert "nothing is known of what was refused: no instance runs" in capsys.readouterr().err
    keep(None, tmp_path / "state")
    assert main(["suggest", "--policy", str(policy)]) == os.EX_UNAVAILABLE
    assert f"with the policy {policy}" in capsys.readouterr().err


def test_wrong_policy(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(policy, tmp_path / "state")
    policy.write_text("version: 1\nregistries: [nonsense]\n")
    assert main(["suggest"]) == os.EX_CONFIG
    assert capsys.readouterr().err.startswith(f"{policy}:2: registries[0]: ")


@pytest.mark.parametrize("place", ["run", "state"])
def test_who_may_not_ask(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError if path.name == place else FileNotFoundError

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert main(["suggest"]) == os.EX_NOPERM
    assert "run it with sudo" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--since", "3", "is no time"),
        ("--since", "0d", "is no time"),
        ("--since", "-3d", "is no time"),
        ("--since", "3 d", "is no time"),
        ("--since", "9" * 99 + "d", "is no time"),
        ("--min-count", "0", "is no number from 1 up"),
        ("--min-count", "x", "is no number from 1 up"),
    ],
)
def test_wrong_options(option: str, value: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["suggest", f"{option}={value}"])
    assert problem in capsys.readouterr().err

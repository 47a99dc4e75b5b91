"""What is refused is kept on disk, from one start to the next, and no trouble with that ends anything."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.daemon.kept_refusals import BusyError, Keeper, Kept, load, load_all, read
from ram_ebpf.daemon.summing import Summing
from ram_ebpf.suggestions.summary import Forgotten, Summary
from tests.unit.suggestions.entries import NOW, refused
from tests.unit.suggestions.test_summary import RECORD

FILE = "/etc/ram-ebpf/policy.yaml"
ENTRY = refused("cdn.example", count=3)
FORGOTTEN = Forgotten(7, NOW, "cgroup /x")


class Said:
    """What was said."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.text = ""

    def __call__(self, event: str, explanation: str) -> None:
        self.events.append(event)
        self.text = explanation


@pytest.fixture
def said() -> Said:
    return Said()


# --- on disk


def test_kept(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    keeper = Keeper(FILE, directory)
    assert keeper.load() is None
    keeper.save([ENTRY], FORGOTTEN)
    assert load(keeper.path) == Kept(FILE, [ENTRY], FORGOTTEN)
    assert list(load_all(directory)) == [Kept(FILE, [ENTRY], FORGOTTEN)]
    assert stat.S_IMODE(keeper.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    keeper.save([], Forgotten())
    assert sorted(path.suffix for path in directory.iterdir()) == [".json", ".lock"]
    keeper.close()


def test_each_policy_has_its_own(tmp_path: Path) -> None:
    made = [Keeper(file, tmp_path) for file in (FILE, "/other.yaml", None)]
    for keeper in made:
        keeper.save([], Forgotten())
    assert {kept.policy for kept in load_all(tmp_path)} == {FILE, "/other.yaml", None}
    with pytest.raises(BusyError, match="another instance with the same policy"):
        Keeper(FILE, tmp_path)
    made[0].close()
    Keeper(FILE, tmp_path).close()


def test_nothing_is_kept(tmp_path: Path) -> None:
    assert list(load_all(tmp_path / "missing")) == []
    assert list(load_all(tmp_path)) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda path: path.chmod(0o666), id="anybody may write it"),
        pytest.param(lambda path: path.write_bytes(b"{"), id="cut off"),
        pytest.param(lambda path: path.write_bytes(b"[" * 100_000), id="deep"),
        pytest.param(lambda path: path.write_bytes(b"[]"), id="a list"),
        pytest.param(lambda path: path.write_text('{"version": 2, "entries": []}'), id="another version"),
        pytest.param(lambda path: path.write_bytes(b"\xff"), id="no text"),
    ],
)
def test_file_that_is_not_believed(tmp_path: Path, change: Callable[[Path], Any]) -> None:
    keeper = Keeper(FILE, tmp_path)
    keeper.save([ENTRY], FORGOTTEN)
    change(keeper.path)
    assert keeper.load() is None
    assert list(load_all(tmp_path)) == []
    keeper.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="files of others are made by root")
def test_file_of_somebody_else(tmp_path: Path) -> None:
    keeper = Keeper(FILE, tmp_path)
    keeper.save([ENTRY], FORGOTTEN)
    os.chown(keeper.path, 65534, 65534)
    assert keeper.load() is None
    keeper.close()


def test_wrong_entries_are_left_out() -> None:
    value = {"version": 1, "policy": None, "entries": [1, {"reason": "x"}, ENTRY.to_json()], "forgotten": [1]}
    assert read(value) == Kept(None, [ENTRY], Forgotten())
    assert read({**value, "policy": 7}) is None
    assert read({**value, "entries": {}}) is None


# --- in the daemon


def test_from_one_start_to_the_next(tmp_path: Path, said: Said) -> None:
    one = Summing(FILE, said, tmp_path)
    one.note(RECORD)
    one.note({"event": "ready"})
    one.close()
    two = Summing(FILE, said, tmp_path)
    two.note(RECORD)
    found = read(two.answer())
    assert found is not None
    assert found.policy == FILE
    assert [(its.host, its.count) for its in found.entries] == [("cdn.example", 2)]
    assert two.most(1, 0) == [found.entries[0].to_json()]
    assert two.most(1, found.entries[0].last + 1) == []
    two.close()
    assert said.events == []


def test_it_is_saved_now_and_then(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ram_ebpf.daemon.summing._SAVE_PERIOD", 0.0)
    made = Summing(FILE, said, tmp_path)
    made.follow()
    assert list(load_all(tmp_path)) == []
    made.note(RECORD)
    made.follow()
    assert len(list(load_all(tmp_path))) == 1
    made.close()


def test_another_instance_writes_there(tmp_path: Path, said: Said) -> None:
    one = Summing(FILE, said, tmp_path)
    two = Summing(FILE, said, tmp_path)
    assert said.events == ["refusals-not-kept"]
    two.note(RECORD)
    assert len(two.answer()["entries"]) == 1
    two.close()
    one.close()
    assert list(load_all(tmp_path)) == []


def test_directory_that_cannot_be_written(tmp_path: Path, said: Said) -> None:
    place = tmp_path / "file"
    place.write_text("")
    made = Summing(FILE, said, place)
    made.note(RECORD)
    made.close()
    assert said.events == ["refusals-not-kept"]


def test_directory_that_goes_away(tmp_path: Path, said: Said) -> None:
    directory = tmp_path / "state"
    made = Summing(FILE, said, directory)
    made.note(RECORD)
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()
    made.save()
    made.note(RECORD)
    made.save()
    made.close()
    assert said.events == ["refusals-not-kept"]


def test_it_is_said_when_there_is_no_room(tmp_path: Path, said: Said) -> None:
    made = Summing(FILE, said, tmp_path, Summary(most=2))
    for number in range(9):
        made.note({**RECORD, "host": f"x{number}.example"})
        made.follow()
    assert said.events == ["refusals-forgotten"]
    assert "most of them in engine docker: perhaps somebody makes up names there" in said.text
    assert made.answer()["forgotten"]["count"] == 7
    made.close()
    again = Summing(FILE, said, tmp_path, Summary(most=2))
    again.follow()
    assert said.events == ["refusals-forgotten"]
    assert json.loads(json.dumps(again.answer()))["forgotten"]["count"] == 7
    again.close()

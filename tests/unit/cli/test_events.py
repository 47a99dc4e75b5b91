"""`ram-ebpf events`: nothing is lost between two questions without a word about it."""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.cli import events
from ram_ebpf.cli.events import News
from ram_ebpf.cli.main import main
from ram_ebpf.daemon.refusals import LastRefusals
from tests.unit.instance import replying

NO_FILTER: dict[str, list[str]] = {"name": [], "reason": [], "of_scope": [], "process": []}


def record(number: int, host: str = "evil.example") -> dict[str, Any]:
    return {
        "time": f"2026-01-01T00:00:{number:06.3f}Z",
        "event": "denied",
        "reason": "denied-registry",
        "host": host,
        "address": "203.0.113.7",
        "port": 443,
        "protocol": "tcp",
    }


def answer(kept: LastRefusals, instance: int = 7) -> dict[str, Any]:
    return {"instance": instance, "refusals": kept.last(100), "noted": kept.noted}


def times(records: list[dict[str, Any]]) -> list[int]:
    return [int(float(found["time"].split(":")[2][:-1])) for found in records]


def test_each_is_told_once() -> None:
    kept, news = LastRefusals(), News()
    for number in range(5):
        kept.note(record(number))
    assert times(news.first([answer(kept)], 2)) == [3, 4]
    assert news.next([answer(kept)]) == []
    for number in range(5, 8):
        kept.note(record(number))
    assert times(news.next([answer(kept)])) == [5, 6, 7]
    assert news.next([answer(kept)]) == []
    assert news.notes() == []


def test_too_many_between_two_questions() -> None:
    kept, news = LastRefusals(), News()
    news.first([answer(kept)], 10)
    for _ in range(130):
        kept.note(record(1))
    assert len(news.next([answer(kept)])) == 100
    assert news.notes() == ["30 refusals came too fast; the log of pid 7 has them"]
    assert news.notes() == []


def test_instance_that_ends_and_another_that_starts() -> None:
    old, new, news = LastRefusals(), LastRefusals(), News()
    old.note(record(1))
    news.first([answer(old)], 10)
    assert news.next([]) == []
    assert "pid 7 has ended" in news.notes()[0]
    new.note(record(2))
    assert times(news.next([answer(new, 8)])) == [2]
    assert news.notes() == ["an instance with pid 8 has started"]


def test_another_instance_with_the_same_number() -> None:
    old, new, news = LastRefusals(), LastRefusals(), News()
    for number in range(3):
        old.note(record(number))
    news.first([answer(old)], 10)
    new.note(record(9))
    assert times(news.next([answer(new)])) == [9]


def test_several_instances_in_the_order_of_time() -> None:
    one, two, news = LastRefusals(), LastRefusals(), News()
    for number in (1, 3):
        one.note(record(number))
    for number in (2, 4):
        two.note(record(number))
    assert times(news.first([answer(one, 1), {"instance": 2, "error": "busy"}, answer(two, 3)], 10)) == [
        1,
        2,
        3,
        4,
    ]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LastRefusals]:
    """What an instance has refused that answers on a real control socket."""
    kept = LastRefusals()
    monkeypatch.setattr("ram_ebpf.daemon.control.ask_all.__defaults__", (tmp_path / "run", 5.0))

    def reply(request: dict[str, Any]) -> dict[str, Any]:
        return {"refusals": kept.last(request["count"]), "noted": kept.noted}

    with replying(tmp_path / "run", reply):
        yield kept


def test_list(kept: LastRefusals, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(20):
        kept.note(record(number))
    assert main(["events", "--last", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"2026-01-01T00:00:{number}.000Z DENIED evil.example (203.0.113.7:443) tcp" for number in (18, 19)
    ]
    assert main(["events", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        record(n) for n in range(10, 20)
    ]


def test_nothing_that_a_terminal_obeys(kept: LastRefusals, capsys: pytest.CaptureFixture[str]) -> None:
    kept.note(record(1, "evil\x1b[2J\u202e\n.example"))
    assert main(["events"]) == 0
    assert "evil\ufffd[2J\ufffd\ufffd.example" in capsys.readouterr().out
    assert main(["explain", "--last"]) == 0
    assert "evil\ufffd[2J\ufffd\ufffd.example" in capsys.readouterr().out


def test_terminal_of_another_encoding(kept: LastRefusals, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.note(record(1, "b\u00fccher.example"))
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", stream)
    assert main(["events"]) == 0
    assert b"DENIED b\\xfccher.example" in stream.buffer.getvalue()


def test_follow(kept: LastRefusals, capsys: pytest.CaptureFixture[str]) -> None:
    kept.note(record(1))
    left = [2, 3]

    def pause(seconds: float) -> bool:
        if not left:
            return False
        kept.note(record(left.pop(0)))
        return True

    arguments = argparse.Namespace(last=0, follow=True, json=True, pause=pause, **NO_FILTER)
    assert events.run(arguments) == 0
    assert times([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == [2, 3]


def test_follow_until_interrupted(kept: LastRefusals) -> None:
    def pause(seconds: float) -> bool:
        raise KeyboardInterrupt

    assert events.run(argparse.Namespace(last=0, follow=True, json=True, pause=pause, **NO_FILTER)) == 130


@pytest.mark.parametrize("count", ["-1", "101", "x", "1" * 5000])
def test_wrong_count(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["events", "--last", count])
    assert "is no number from 0 to 100" in capsys.readouterr().err


def test_no_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ram_ebpf.daemon.control.ask_all.__defaults__", (tmp_path, 1.0))
    assert main(["events"]) == os.EX_UNAVAILABLE

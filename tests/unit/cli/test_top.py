"""`ram-ebpf top`: rates, room on a small screen, and nothing that a terminal obeys."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.cli import top
from ram_ebpf.cli.main import main
from ram_ebpf.cli.top_view import Watch, kind_of, lines
from ram_ebpf.dataplane.abi import Reason
from tests.unit.instance import replying

HOSTILE = "evil\x1b]0;owned\x07\x9b2J\u202e\uff45\n.example"
SHOWN = "evil?]0;owned??2J???.example"
NOW = 1_790_000_000


def entry(host: str, count: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "host": host,
        "address": "192.0.2.1",
        "port": 443,
        "protocol": "tcp",
        "reason": "denied-unknown-address",
        "scope": "engine docker",
        "process": "dockerd",
        "verdict": "deny",
        "first": NOW - 9,
        "last": NOW,
        "count": count,
        **changes,
    }


def answer(*refused: dict[str, Any], denied: int = 0, allowed: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "instance": 7,
        "version": "0.1.0",
        "mode": "enforce",
        "policy": "/etc/ram-ebpf/policy.yaml",
        "counters": {"allowed-learned": allowed, "denied-unknown-address": denied},
        "refused": list(refused),
        "scopes": [
            {"scope": "engine docker", "posture": "strict", "places": 2, "learned": 1000, "more": True}
        ],
        "expiring": [
            {
                "seconds": 12.3,
                "address": "192.0.2.9",
                "name": None,
                "rule": "*.example",
                "scope": "engine docker",
            }
        ],
        **changes,
    }


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.NONE])
def test_kind_of_each_reason(reason: Reason) -> None:
    known = {"ALLOWED": "allow", "DENIED": "deny", "NAME": "deny", "DNS": "dns"}
    assert kind_of(reason.slug) == known[reason.name.partition("_")[0]]


def test_rates() -> None:
    watch = Watch()
    first = watch.frame([answer(entry("a.example", 5), denied=10, allowed=100)], 50.0)
    assert first.verdicts() == {"allow": (0.0, 100), "deny": (0.0, 10), "dns": (0.0, 0)}
    later = [
        answer(entry("a.example", 9), entry("new.example", 2, first=NOW), denied=16, allowed=101),
        {"instance": 8, "error": "busy"},
    ]
    frame = watch.frame(later, 52.0)
    assert frame.verdicts() == {"allow": (0.5, 101), "deny": (3.0, 16), "dns": (0.0, 0)}
    assert frame.reasons[0] == ("denied-unknown-address", 3.0, 16)
    assert [(row.host, row.count, row.rate) for row in frame.rows] == [
        ("a.example", 9, 2.0),
        ("new.example", 2, 1.0),
    ]
    assert frame.problems == ("pid 8: busy",)
    json.dumps(frame.to_json())


def test_an_instance_that_starts_again_has_no_negative_rates() -> None:
    watch = Watch()
    watch.frame([answer(entry("a.example", 50), denied=100)], 50.0)
    frame = watch.frame([answer(entry("a.example", 1), denied=1)], 51.0)
    assert frame.verdicts()["deny"] == (0.0, 1)
    assert frame.rows[0].rate == 0.0


def test_several_instances() -> None:
    frame = Watch().frame([answer(denied=1), answer(denied=2, instance=8, mode="audit")], 1.0)
    assert frame.verdicts()["deny"] == (0.0, 3)
    assert len(frame.scopes) == 2
    assert "(pid 7): enforce" in frame.title
    assert "(pid 8): audit" in frame.title


def test_audit() -> None:
    frame = Watch().frame([answer(denied=3, mode="audit")], 1.0)
    assert frame.verdicts() == {"allow": (0.0, 0), "would-deny": (0.0, 3), "dns": (0.0, 0)}


def test_no_instance() -> None:
    frame = Watch().frame([], 1.0)
    assert lines(frame, 80, 23)[0] == "no instance of ram-ebpf runs here"


@pytest.mark.parametrize(
    ("sort", "expected"), [("r", "bac"), ("c", "abc"), ("l", "cba"), ("n", "abc")], ids=list("rcln")
)
def test_sorting(sort: str, expected: str) -> None:
    watch = Watch()
    watch.frame(
        [answer(entry("a.example", 9), entry("b.example", 3), entry("c.example", 1, last=NOW + 2))], 1.0
    )
    frame = watch.frame(
        [
            answer(
                entry("a.example", 9),
                entry("b.example", 5, last=NOW + 1),
                entry("c.example", 1, last=NOW + 2),
            )
        ],
        2.0,
    )
    shown = lines(frame, 80, 23, sort)
    hosts = [line.split()[2][0] for line in shown if ".example:443" in line]
    assert "".join(hosts) == expected


@pytest.mark.parametrize("size", [(79, 23), (39, 9), (10, 3), (1, 1), (200, 60)])
def test_it_fits(size: tuple[int, int]) -> None:
    many = answer(
        *(entry(f"h{number}.{'a' * 60}.example", number + 1) for number in range(200)),
        counters={reason.slug: 5 for reason in Reason if reason is not Reason.NONE},
        scopes=[
            {"scope": f"cgroup /{n}", "posture": "strict", "places": 1, "learned": n, "more": False}
            for n in range(50)
        ],
        expiring=[{**answer()["expiring"][0], "seconds": n} for n in range(20)],
    )
    width, height = size
    shown = lines(Watch().frame([many], 1.0), width, height)
    assert len(shown) <= height
    assert all(len(line) <= width and line.isascii() and line.isprintable() for line in shown)
    if height == 23:
        assert len(shown) == height
        # All four parts are to be seen on the smallest usual terminal.
        assert (
            sum(any(word in line for line in shown) for word in ("REASON", "REFUSED", "SCOPE", "EXPIRES"))
            == 4
        )
        assert sum(".example:443" in line or "h1" in line for line in shown) >= 3


def test_nothing_that_a_terminal_obeys() -> None:
    frame = Watch().frame(
        [
            answer(
                entry(HOSTILE, process=HOSTILE, scope=HOSTILE, reason=HOSTILE),
                policy=HOSTILE,
                scopes=[{"scope": HOSTILE, "posture": "strict", "places": 1, "learned": 1, "more": False}],
                expiring=[{**answer()["expiring"][0], "name": HOSTILE}],
            ),
            {"instance": 8, "error": HOSTILE},
        ],
        1.0,
    )
    shown = lines(frame)
    assert all(line.isascii() and line.isprintable() for line in shown)
    assert sum(line.count(SHOWN) for line in shown) == 8


# --- with somebody who answers


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """Of the control socket of an instance that refuses something hostile, ever more often."""
    asked = [0]

    def reply(request: dict[str, Any]) -> dict[str, Any]:
        asked[0] += 1
        return answer(entry(HOSTILE, asked[0] * 10), denied=asked[0] * 10)

    with replying(tmp_path / "run", reply):
        yield tmp_path / "run"


@pytest.fixture
def answering(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ram_ebpf.daemon.control.ask_all.__defaults__", (directory, 5.0))
    monkeypatch.setattr(top, "_PERIOD", 0.1)


@pytest.mark.usefixtures("answering")
def test_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once"]) == 0
    shown = capsys.readouterr().out
    assert f"{SHOWN}:443" in shown
    assert "denied-unknown-address" in shown
    assert "\x1b" not in shown


@pytest.mark.usefixtures("answering")
def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--once", "--json", "--sort", "name"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["refused"][0]["host"] == HOSTILE
    assert found["verdicts"]["deny"]["total"] == 20
    assert found["verdicts"]["deny"]["rate"] > 0
    assert found["expiring"][0]["seconds"] == 12.3


def test_no_instance_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ram_ebpf.daemon.control.ask_all.__defaults__", (tmp_path, 1.0))
    assert main(["top", "--once"]) == os.EX_UNAVAILABLE


class Terminal:
    """A terminal of 80 x 24, in which the command runs."""

    def __init__(self, directory: Path, kind: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = {**os.environ, "RAM_EBPF_RUN": str(directory), "TERM": kind}
        environment |= {"LINES": "24", "COLUMNS": "80"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ram_ebpf", "top"],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
            cwd=Path(__file__).parents[3],
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""

    def wait(self, text: str, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._ours, 65536).decode()
                except OSError:  # it has ended
                    assert text in self.shown, self.shown

    def press(self, keys: str) -> None:
        self.shown = ""
        os.write(self._ours, keys.encode())

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.hang_up()

    def hang_up(self) -> None:
        """As if its window were closed."""
        ours, self._ours = self._ours, -1
        if ours >= 0:
            os.close(ours)


def test_terminal_that_is_closed(directory: Path) -> None:
    """Nobody is there any more to press q."""
    with Terminal(directory, "xterm") as terminal:
        terminal.wait("q quit")
        terminal.hang_up()
        assert terminal.process.wait(20) == 0


def test_screen(directory: Path) -> None:
    with Terminal(directory, "xterm") as terminal:
        terminal.wait("q quit")
        assert f"{SHOWN}:443" in terminal.shown
        assert "\x1b]0;" not in terminal.shown
        assert "\x9b" not in terminal.shown
        terminal.press("p")
        terminal.wait("(paused)")
        terminal.press("c")
        terminal.wait("count")
        terminal.press("q")
        assert terminal.process.wait(20) == 0


def test_terminal_that_is_not_known(directory: Path) -> None:
    with Terminal(directory, "no-such-terminal") as terminal:
        terminal.wait("try --once")
        assert terminal.process.wait(20) == os.EX_UNAVAILABLE

"""Token buckets for the lines of one source each, and reports of what they left out."""

from __future__ import annotations

import pytest

from ram_ebpf.daemon import limits
from ram_ebpf.daemon.limits import LineLimits, Source
from ram_ebpf.policy.log import LogOptions
from ram_ebpf.policy.refusals import Switch

from .clock import Clock

OPTIONS = LogOptions(lines_per_minute=60, burst=3, report_seconds=10)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock) -> LineLimits:
    return LineLimits(OPTIONS, clock)


def source(process: str = "curl", reason: str = "denied-port", scope: str = "cgroup:/x") -> Source:
    return Source("denied", reason, process, "/x/y", scope)


def ask(lines: LineLimits, who: Source) -> bool:
    """Whether there was a line."""
    allowance = lines.of(who, lambda: who)
    if allowance.is_spent:
        allowance.leave_out()
        return False
    allowance.take()
    return True


def count(lines: LineLimits, who: Source, times: int) -> int:
    return sum(ask(lines, who) for _ in range(times))


def test_burst_and_rate(lines: LineLimits, clock: Clock) -> None:
    assert count(lines, source(), 100) == 3
    clock.now += 2
    assert count(lines, source(), 100) == 2
    clock.now += 3600
    assert count(lines, source(), 100) == 3
    assert lines.left_out == 97 + 98 + 97


@pytest.mark.parametrize(
    "other", [source("wget"), source(reason="denied-expired"), source(scope="cgroup:/other")]
)
def test_others_have_their_own(lines: LineLimits, other: Source) -> None:
    assert count(lines, source(), 5) == 3
    assert count(lines, other, 5) == 3


def test_names_without_end(lines: LineLimits) -> None:
    """Whoever takes another name for each line has ten times what one name has, and takes nothing from other
    scopes or from other kinds of lines."""
    assert sum(ask(lines, source(f"n{number}")) for number in range(5000)) == 30
    assert ask(lines, source(scope="cgroup:/other"))
    learned = Source("learned", "dns-learned", None, "/x/y", "cgroup:/x")
    assert ask(lines, learned)


def test_memory(lines: LineLimits, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each source is in another scope. What finds no room shares one bucket for each reason."""
    monkeypatch.setattr(limits, "_MOST", 100)
    for number in range(1000):
        ask(lines, source(f"n{number}"))
    assert len(lines._allowances) == 100
    assert len(lines._others) == 1
    assert len(lines._counts) <= 101
    clock.now += 3600  # whoever has been silent so long is as good as new
    assert count(lines, source("late"), 5) == 3
    assert len(lines._allowances) == 100


def test_a_new_name_brings_nothing_where_there_is_no_room(
    lines: LineLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_MOST", 2)
    first, second = source("a"), source("b")
    assert (count(lines, first, 5), count(lines, second, 5)) == (3, 3)
    assert sum(ask(lines, source(f"n{number}")) for number in range(100)) == 3
    assert not ask(lines, first)


def test_off(clock: Clock) -> None:
    lines = LineLimits(LogOptions(limit=Switch.OFF, burst=1), clock)
    assert count(lines, source(), 500) == 500
    assert lines.report(at_once=True) == []


def test_other_options(lines: LineLimits) -> None:
    """As a reload brings them; what was left out stays counted."""
    assert count(lines, source(), 5) == 3
    lines.options = LogOptions(limit=Switch.OFF)
    assert count(lines, source(), 5) == 5
    (report,) = lines.report()
    assert report["count"] == 2


# --- reports


def test_report(lines: LineLimits, clock: Clock) -> None:
    assert lines.report() == []
    count(lines, source(), 10)
    clock.now += 4
    lines.of(source(), source).leave_out()
    assert lines.report() == [
        {
            "event": "suppressed",
            "suppressed": "denied",
            "reason": "denied-port",
            "process": "curl",
            "cgroup": "/x/y",
            "scope": "cgroup:/x",
            "count": 8,
            "seconds": 4,
            "explanation": (
                "8 more within 4 s have no line of their own: denied as denied-port by curl in /x/y"
            ),
        }
    ]
    assert lines.report(at_once=True) == []


def test_reports_come_now_and_then(lines: LineLimits, clock: Clock) -> None:
    told = []
    for step in range(400):  # 40 seconds
        clock.now = 1000 + step / 10
        count(lines, source(), 10)
        told += [(step, line["count"]) for line in lines.report()]
    assert [step for step, _ in told] == [0, 100, 200, 300]
    told += [(400, line["count"]) for line in lines.report(at_once=True)]
    assert sum(number for _, number in told) == lines.left_out == 4000 - 3 - 39


def test_report_of_many(lines: LineLimits) -> None:
    for number in range(30):
        for _ in range(3 + number + 1):
            ask(lines, source(f"n{number}", reason="denied-port" if number % 2 else "denied-expired"))
    *lines_of_most, rest = lines.report()
    assert [line["process"] for line in lines_of_most] == [f"n{number}" for number in range(29, 19, -1)]
    assert (rest["sources"], set(rest["reasons"])) == (20, {"denied-port", "denied-expired"})
    assert sum(line["count"] for line in lines_of_most) + rest["count"] == lines.left_out
    assert sum(rest["reasons"].values()) == rest["count"]


@pytest.mark.parametrize(
    ("who", "text"),
    [
        (Source("denied", "r", "curl", "/x", "cgroup:/"), "by curl in /x"),
        (Source("denied", "r", None, None, "device:veth1"), "in device:veth1"),
        (Source("denied", "r"), "by others"),
    ],
)
def test_who(who: Source, text: str) -> None:
    assert str(who) == text

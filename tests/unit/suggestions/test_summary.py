"""What was refused is kept in little room, whoever makes up names."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ram_ebpf.suggestions.refused import Refused, from_json, from_record
from ram_ebpf.suggestions.summary import DAYS, Forgotten, Summary

from .entries import NOW, refused

DAY = 86400
RECORD: dict[str, Any] = {
    "event": "would-deny",
    "verdict": "would-deny",
    "reason": "denied-unknown-address",
    "host": "cdn.example",
    "address": "192.0.2.1",
    "port": 443,
    "protocol": "tcp",
    "process": "dockerd",
    "pid": 7,
    "scope": "engine docker",
    "hint": "cdn.example was looked up 1 s after ...",
    "after": "registry.example",
    "after_rule": "*.example",
}


# --- from lines of the log


def test_record() -> None:
    assert from_record(RECORD, NOW) == refused(
        "cdn.example", after="registry.example", after_rule="*.example", after_count=1
    )


def test_name_that_was_said() -> None:
    """The host is whose address it went to, which is allowed."""
    record = {**RECORD, "reason": "name-mismatch", "name": "Evil.example"}
    assert from_record(record, NOW) == refused("evil.example", reason="name-mismatch")
    del record["name"]
    assert from_record(record, NOW) is None


@pytest.mark.parametrize(
    ("registry", "host", "address", "port"),
    [
        ("docker.io", "registry-1.docker.io", "", 443),
        ("new.example:5000", "new.example", "", 5000),
        ("10.20.0.7:5000", "", "10.20.0.7", 5000),
        ("[2001:db8::7]", "", "2001:db8::7", 443),
        ("not a registry", "", "", 0),
        (None, "", "", 0),
    ],
)
def test_request_to_docker(registry: str | None, host: str, address: str, port: int) -> None:
    record = {
        "event": "denied",
        "verdict": "deny",
        "reason": "denied-image",
        "registry": registry,
        "user": "amy",
        "method": "POST",
        "path": "/images/create",
    }
    assert from_record(record, NOW) == refused(
        host, port, address=address, reason="denied-image", verdict="deny", process="amy", scope=""
    )


@pytest.mark.parametrize("record", [{"event": "ready"}, {"event": "allowed", "verdict": "allow"}])
def test_other_lines(record: dict[str, Any]) -> None:
    assert from_record(record, NOW) is None


def test_long_values() -> None:
    made = from_record(
        {**RECORD, "host": "a" * 2000, "process": "p" * 2000, "scope": "s" * 2000, "after": "x" * 2000}, NOW
    )
    assert made is not None
    assert made.name is None
    assert len(json.dumps(made.to_json())) < 1500
    assert from_json(made.to_json()) == made


# --- from JSON


def test_json() -> None:
    made = refused("cdn.example", count=3)
    assert from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": 7},
        {"port": "443"},
        {"port": True},
        {"port": 65536},
        {"port": -1},
        {"count": 0},
        {"count": -1},
        {"count": 1.5},
        {"last": 1 << 60},
        {"first": NOW + 1},
        {"after_count": -1},
        {"verdict": "allow"},
        {"host": None},
        {"host": "a" * 1000},
        {"surprise": 1},
    ],
)
def test_wrong_json(changes: dict[str, Any]) -> None:
    assert from_json({**refused("cdn.example").to_json(), **changes}) is None


@pytest.mark.parametrize("value", [None, 1, "x", [], {}])
def test_other_json(value: object) -> None:
    assert from_json(value) is None


# --- the summary


def hosts(summary: Summary) -> list[str]:
    return [its.host for its in summary]


def test_the_same_is_counted() -> None:
    summary = Summary()
    summary.note(refused("a.example", first=NOW - 9, last=NOW - 9, verdict="deny"))
    summary.note(
        refused("a.example", address="192.0.2.2", process="podman", after="x.example", after_count=1)
    )
    summary.note(refused("a.example", 80))
    summary.note(refused("a.example", scope="cgroup /x"))
    summary.note(refused("a.example", reason="denied-port"))
    assert len(summary) == len(list(summary)) == 4
    first = next(iter(summary))
    assert first == refused(
        "a.example",
        first=NOW - 9,
        count=2,
        address="192.0.2.2",
        process="podman",
        after="x.example",
        after_count=1,
    )


def test_what_was_refused_longest_ago_goes_first() -> None:
    summary = Summary(most=3)
    for host in ("a.example", "b.example", "c.example", "a.example", "d.example"):
        summary.note(refused(host))
    assert hosts(summary) == ["c.example", "a.example", "d.example"]
    assert summary.forgotten == Forgotten(1, NOW, "engine docker")


def test_made_up_names_cost_the_own_scope_its_room() -> None:
    summary = Summary(most=10)
    for number in range(4):
        summary.note(refused(f"h{number}.example", scope="cgroup /quiet"))
    for number in range(1000):
        summary.note(refused(f"x{number}.example", scope="cgroup /loud"))
    assert len(summary) == 10
    assert [its.host for its in summary if its.scope == "cgroup /quiet"] == [
        f"h{n}.example" for n in range(4)
    ]
    assert summary.forgotten == Forgotten(994, NOW, "cgroup /loud")


def test_what_is_old_is_forgotten() -> None:
    summary = Summary()
    then = NOW - DAYS * DAY - 1
    summary.note(refused("old.example", first=then, last=then))
    summary.note(refused("old.example", first=then, last=then, scope="cgroup /gone"))
    summary.note(refused("new.example"))
    summary.forgotten = Forgotten(9, then, "cgroup /gone")
    summary.forget_old(NOW)
    assert hosts(summary) == ["new.example"]
    assert len(summary) == 1
    assert summary.forgotten == Forgotten()


def test_those_of_an_earlier_time() -> None:
    summary = Summary(most=2)
    entries = [
        refused(f"{name}.example", first=NOW - age, last=NOW - age)
        for name, age in (("a", 1), ("b", 3), ("c", 2))
    ]
    summary.take(entries)
    assert hosts(summary) == ["c.example", "a.example"]


def test_a_flood_is_quick_and_small() -> None:
    summary = Summary()
    made = [refused(f"x{number}.example") for number in range(20_000)]
    for one in made:
        summary.note(one)
    assert isinstance(made[0], Refused)
    assert len(summary) == 2000

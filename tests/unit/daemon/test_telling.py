"""Which events become lines, and that each of the others is counted in one place."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.losses import Losses
from ram_ebpf.daemon.records import Describer
from ram_ebpf.daemon.telling import Telling
from ram_ebpf.dataplane.abi import Hook, Reason, Verdict
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.log import LogOptions
from ram_ebpf.policy.rules import RuleSet

from .clock import Clock
from .samples import DNS_EVENT, EVENT

TABLES = Tables(RuleSet((), ()), (1, 2, 3, 4))
Make = Callable[..., Telling]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def make(clock: Clock, lines: list[dict[str, Any]]) -> Make:
    def made(log_dns: bool = False, **options: Any) -> Telling:
        describer = Describer(lambda number: TABLES, NameHistory(), lambda identifier: f"/c{identifier}")
        describer.scope_label = lambda number: f"scope{number}"
        losses = Losses(lambda event, explanation, *, count: None, clock)
        return Telling(describer, lines.append, losses, LogOptions(**options), log_dns, clock)

    return made


def address(number: int) -> Any:
    return ipaddress.IPv4Address(0xC6120000 + number)


def test_each_is_counted_once(make: Make, lines: list[dict[str, Any]], clock: Clock) -> None:
    """Lines, those that were the same as the last one, and those that were too many."""
    telling = make(burst=10, lines_per_minute=1)
    for number in range(100):
        telling.tell(replace(EVENT, address=address(number % 7)), None)
    for number in range(100):
        telling.tell(replace(EVENT, address=address(number)), None)
    counters = telling.counters()
    assert len(lines) == 10
    assert counters == {"repeated": 100, "suppressed": 90, "lost": 0}
    telling.report()
    assert (lines[-1]["event"], lines[-1]["count"]) == ("suppressed", 90)
    assert (lines[-1]["process"], lines[-1]["cgroup"]) == ("docker", "/c77")


def test_a_packet_of_a_suppressed_connection_is_not_told(make: Make, lines: list[dict[str, Any]]) -> None:
    """In mode audit its connect() was judged already, whether or not that had a line."""
    telling = make(burst=1)
    for number in range(50):
        event = replace(EVENT, verdict=Verdict.WOULD_DENY, socket_cookie=number, address=address(number))
        telling.tell(event, None)
        telling.tell(replace(event, hook=Hook.INET_EGRESS, pid=None, process=None), None)
    assert len(lines) == 1
    assert telling.counters()["suppressed"] == 49


def test_replies_take_no_lines_from_refusals(make: Make, lines: list[dict[str, Any]]) -> None:
    """Those come from the network, in nobody's name."""
    telling = make(burst=5)
    for number in range(500):
        reply = replace(DNS_EVENT, reason=Reason.DNS_NO_QUERY, cgroup_id=number, address=address(number))
        telling.tell(reply, None)
    assert len(lines) == 50
    telling.tell(EVENT, None)
    assert lines[-1]["event"] == "denied"


@pytest.mark.parametrize(
    "event",
    [
        replace(DNS_EVENT, reason=Reason.DNS_NOT_LISTED),
        replace(EVENT, verdict=Verdict.ALLOW, reason=Reason.ALLOWED_UNASKED),
    ],
)
def test_what_is_told_by_option(make: Make, lines: list[dict[str, Any]], event: Any) -> None:
    make().tell(event, None)
    assert lines == []
    make(log_dns=True).tell(event, None)
    assert len(lines) == 1


def test_requests(make: Make, lines: list[dict[str, Any]]) -> None:
    telling = make(burst=2, lines_per_minute=1)
    for _ in range(10):
        telling.tell_request({"event": "denied", "reason": "denied-image", "scope": "engine:docker"})
    assert len(lines) == 2
    telling.report()
    assert (lines[-1]["count"], lines[-1]["scope"]) == (8, "engine:docker")


def test_each_refusal_is_summed_up(make: Make, lines: list[dict[str, Any]]) -> None:
    """`ram-ebpf suggest` is to know of those that have no line as well."""
    telling = make(burst=1)
    summed: list[dict[str, Any]] = []
    telling.sum_up = summed.append
    for number in range(50):
        telling.tell(replace(EVENT, address=address(number)), None)
        telling.tell(replace(DNS_EVENT, cgroup_id=number), None)
    telling.tell_request({"event": "denied", "reason": "denied-image"})
    telling.tell_request({"event": "denied", "reason": "denied-image"})
    assert [line["event"] for line in lines].count("denied") == 2
    assert [record["event"] for record in summed] == ["denied"] * 52

"""Holding back what was just said."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from typing import Any

import pytest

from ram_ebpf.daemon import repeats
from ram_ebpf.daemon.repeats import Repeats
from ram_ebpf.dataplane.abi import Hook, Verdict
from ram_ebpf.dataplane.events import Event

from .clock import Clock
from .samples import EVENT

EGRESS = replace(EVENT, hook=Hook.INET_EGRESS, pid=None)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Repeats:
    return Repeats(clock)


def record(**changes: Any) -> dict[str, Any]:
    return {
        "event": "denied",
        "reason": "denied-unknown-address",
        "host": "evil.example",
        "address": "192.0.2.1",
        "port": 443,
        "protocol": "tcp",
        "pid": 42,
        "cgroup": "/docker",
        **changes,
    }


def passes(gate: Repeats, line: dict[str, Any], event: Event = EVENT) -> bool:
    return not gate.is_told(event) and gate.is_news(event, line)


def test_one_a_second(gate: Repeats, clock: Clock) -> None:
    passed = []
    for step in range(35):
        clock.now = 1000 + step / 10
        line = record()
        if passes(gate, line):
            passed.append((step, line.get("repeated")))
    assert passed == [(0, None), (10, 9), (20, 9), (30, 9)]
    assert gate.suppressed == 31


def test_what_passes_late_was_not_repeated(gate: Repeats, clock: Clock) -> None:
    for _ in range(3):
        line = record()
        assert passes(gate, line)
        assert "repeated" not in line
        clock.now += 1.5


def test_held_back_records_are_left_as_they_are(gate: Repeats) -> None:
    passes(gate, record())
    line = record()
    assert not passes(gate, line)
    assert line == record()


@pytest.mark.parametrize(
    "change",
    [
        {"event": "would-deny"},
        {"reason": "denied-port"},
        {"host": "other.example"},
        {"port": 80},
        {"protocol": "udp"},
        {"pid": 43},
        {"cgroup": "/other"},
    ],
)
def test_other_decisions_pass(gate: Repeats, change: dict[str, Any]) -> None:
    assert passes(gate, record())
    assert passes(gate, record(**change))
    assert not passes(gate, record())
    assert not passes(gate, record(**change))


def test_a_name_stands_for_all_its_addresses(gate: Repeats) -> None:
    assert passes(gate, record())
    assert not passes(gate, record(address="192.0.2.2"))


def test_without_a_name_addresses_differ(gate: Repeats) -> None:
    lines = [record(address=f"192.0.2.{n}") for n in (1, 2, 1)]
    for line in lines:
        del line["host"]
    assert [passes(gate, line) for line in lines] == [True, True, False]


def test_without_a_process_everything_passes(gate: Repeats) -> None:
    for _ in range(3):
        line = record()
        del line["pid"]
        assert passes(gate, line)
        assert "repeated" not in line


@pytest.mark.parametrize("event", ["ignored-reply", "not-understood"])
def test_replies_are_held_back_without_a_process(gate: Repeats, event: str) -> None:
    """They come from the network, as many as somebody likes."""
    ingress = replace(EVENT, hook=Hook.INET_INGRESS, verdict=Verdict.NONE, pid=None)
    line = {"event": event, "reason": "dns-no-query", "resolver": "192.0.2.66#53", "protocol": "udp"}
    assert passes(gate, dict(line), ingress)
    assert not passes(gate, dict(line), ingress)
    assert passes(gate, {**line, "resolver": "192.0.2.67#53"}, ingress)


# --- what connect() decided, and what its packets do


@pytest.mark.parametrize(
    "hook", [Hook.INET4_CONNECT, Hook.INET6_CONNECT, Hook.UDP4_SENDMSG, Hook.UDP6_SENDMSG]
)
def test_a_packet_of_a_decided_connection_is_not_told(gate: Repeats, hook: Hook) -> None:
    assert passes(gate, record(), replace(EVENT, hook=hook))
    assert not passes(gate, record(pid=43), EGRESS)


def test_packets_do_not_stand_for_one_another(gate: Repeats) -> None:
    for _ in range(2):
        line = record()
        del line["pid"]
        assert passes(gate, line, EGRESS)


@pytest.mark.parametrize(
    "change",
    [
        {"socket_cookie": 6},
        {"address": ipaddress.ip_address("192.0.2.2")},
        {"port": 80},
        {"verdict": Verdict.WOULD_DENY},
    ],
)
def test_packets_of_other_connections_are_told(gate: Repeats, change: dict[str, Any]) -> None:
    assert passes(gate, record())
    line = record()
    del line["pid"]
    assert passes(gate, line, replace(EGRESS, **change))


def test_a_decision_that_was_held_back_counts_as_told(gate: Repeats) -> None:
    assert passes(gate, record())
    assert not passes(gate, record(), replace(EVENT, socket_cookie=6))
    assert not passes(gate, record(pid=44), replace(EGRESS, socket_cookie=6))


def test_an_incoming_packet_decides_nothing_for_outgoing_ones(gate: Repeats) -> None:
    assert passes(gate, record(), replace(EVENT, hook=Hook.INET_INGRESS))
    assert passes(gate, record(pid=44), EGRESS)


def test_the_memory_of_connections_has_a_bound(gate: Repeats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_MOST", 2)
    for cookie in (1, 2, 3):
        passes(gate, record(), replace(EVENT, socket_cookie=cookie))
    line = record()
    del line["pid"]
    told = [passes(gate, dict(line), replace(EGRESS, socket_cookie=cookie)) for cookie in (1, 2, 3)]
    assert told == [True, False, False]


def test_the_memory_has_a_bound(gate: Repeats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "_MOST", 3)
    for pid in (1, 2, 3, 4):
        assert passes(gate, record(pid=pid))
    assert not passes(gate, record(pid=2))
    assert passes(gate, record(pid=1))  # it was forgotten


def test_many(gate: Repeats) -> None:
    first = int(ipaddress.ip_address("10.0.0.0"))
    assert all(
        passes(gate, record(host=None, address=str(ipaddress.ip_address(first + n)))) for n in range(10_000)
    )


def test_the_real_clock() -> None:
    gate = Repeats()
    assert passes(gate, record())
    assert not passes(gate, record())

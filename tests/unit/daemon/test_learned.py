"""What is told of learned addresses."""

from __future__ import annotations

from ipaddress import ip_address

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.learned import MOST, describe, openings
from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import compile_rules

from .maps import FakeMap

GRACE = 30
POLICY = b"version: 1\nregistries: [{ host: registry.test, ports: [443, 5000] }]\n"


def tables() -> Tables:
    return Tables(compile_rules(parse_policy(POLICY, "p.yaml"), load_catalogue()), (1, 2, 3, 4))


def learned(count: int, *seconds: float, port_list: int = 0, flags: int = 0) -> FakeMap:
    """So many addresses, the first ones with so many seconds left, the others with an hour."""
    made, now = FakeMap(max_entries=count), clock.now_ns()
    for number in range(count):
        left = seconds[number] if number < len(seconds) else 3600 + number
        opening = abi.Opening(now + int(left * clock.NANOSECONDS), 1, flags)
        made[abi.opening_key(ip_address(f"198.51.{number >> 8}.{number & 255}"), port_list)] = bytes(opening)
    return made


def test_more_than_are_described() -> None:
    """All are counted, and those that go first are told."""
    found = list(openings([learned(MOST + 500, 20.5, 10.5)], tables(), GRACE))
    assert len(found) == MOST + 500
    told = describe(found, tables(), NameHistory())
    assert len(told) == MOST
    assert [each["address"] for each in told[:3]] == ["198.51.0.1", "198.51.0.0", "198.51.0.2"]
    assert [each["seconds"] for each in told[:2]] == [10, 20]
    assert told[0]["ports"] == [443, 5000]
    assert told[0]["rule"] is not None


def test_what_opens_nothing() -> None:
    """Over for longer than the time of grace, at a private address that no rule allows, or refused."""
    assert len(list(openings([learned(3, -GRACE - 5, -GRACE + 5)], tables(), GRACE))) == 2
    assert list(openings([learned(2, flags=abi.OpeningFlag.PRIVATE)], tables(), GRACE)) == []
    assert list(openings([learned(2, port_list=abi.RefusedList.ALL)], tables(), GRACE)) == []


def test_not_all_are_looked_at() -> None:
    assert len(list(openings([learned(9), learned(9)], tables(), GRACE, most=4))) == 8

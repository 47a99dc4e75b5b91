"""Addresses that user space opens."""

from __future__ import annotations

import errno
import ipaddress
import logging
import time

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.openings import open_addresses, remove_expired
from ram_ebpf.dataplane.plane import NANOSECONDS, Settings

from .maps import FakeMap

ip = ipaddress.ip_address
ONE, TWO, SIX = ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::1")
NOW = 1_000 * NANOSECONDS


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic_ns", lambda: NOW)


def opening(seeded: FakeMap, address: abi.IPAddress, port: int) -> tuple[float, int] | None:
    """Seconds from now until it expires, and its rule."""
    raw = seeded.get(abi.endpoint(address, port))
    if raw is None:
        return None
    value = abi.Opening.from_buffer_copy(raw)
    assert value.zero == 0
    return (value.expires_ns - NOW) / NANOSECONDS, value.rule


def test_every_address_on_every_port_and_on_none() -> None:
    seeded = FakeMap()
    open_addresses(seeded, [(ONE, 60), (SIX, 30)], (443, 5000), 7, Settings())
    assert len(seeded.entries) == 6
    for port in (abi.PORT_ANY, 443, 5000):
        assert opening(seeded, ONE, port) == (60, 7)
        assert opening(seeded, SIX, port) == (30, 7)


def test_nothing_to_open() -> None:
    seeded = FakeMap()
    open_addresses(seeded, [], (443,), 7, Settings())
    assert seeded.entries == {}


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(0, 10), (9, 10), (10, 10), (11, 11), (100, 100), (101, 100), (2**31 - 1, 100)]
)
def test_the_time_to_live_has_bounds(ttl: int, seconds: int) -> None:
    seeded = FakeMap()
    open_addresses(seeded, [(ONE, ttl)], (443,), 7, Settings(minimum_ttl=10, maximum_ttl=100))
    assert opening(seeded, ONE, 443) == (seconds, 7)


def test_the_longest_time_fits() -> None:
    seeded = FakeMap()
    open_addresses(seeded, [(ONE, 2**32 - 1)], (443,), 7, Settings(maximum_ttl=2**32 - 1))
    assert opening(seeded, ONE, 443) == (2**32 - 1, 7)


def test_a_later_end_replaces_and_an_earlier_does_not() -> None:
    seeded = FakeMap()
    for ttl, rule, expected in ((60, 7, (60, 7)), (30, 8, (60, 7)), (60, 9, (60, 7)), (90, 10, (90, 10))):
        open_addresses(seeded, [(ONE, ttl)], (443,), rule, Settings())
        assert opening(seeded, ONE, 443) == opening(seeded, ONE, abi.PORT_ANY) == expected


def test_the_grace_is_left_to_the_kernel() -> None:
    seeded = FakeMap()
    open_addresses(seeded, [(ONE, 60)], (443,), 7, Settings(grace=3600))
    assert opening(seeded, ONE, 443) == (60, 7)


def test_ipv4_mapped_is_the_same_address() -> None:
    seeded = FakeMap()
    open_addresses(seeded, [(ONE, 60), (ip(f"::ffff:{ONE}"), 90)], (443,), 7, Settings())
    assert len(seeded.entries) == 2
    assert opening(seeded, ONE, 443) == (90, 7)


def test_a_full_map_is_told_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    seeded = FakeMap(max_entries=3)
    with caplog.at_level(logging.WARNING):
        open_addresses(seeded, [(ONE, 60), (TWO, 60), (SIX, 60)], (443,), 7, Settings())
    assert len(seeded.entries) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "no room for 192.0.2.2: more than 3 addresses"
    ]


def test_what_is_there_is_renewed_in_a_full_map() -> None:
    seeded = FakeMap(max_entries=2)
    for ttl in (60, 90):
        open_addresses(seeded, [(ONE, ttl)], (443,), 7, Settings())
    assert opening(seeded, ONE, 443) == (90, 7)


def test_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FakeMap, key: bytes, value: bytes) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(FakeMap, "__setitem__", refuse)
    with pytest.raises(PermissionError):
        open_addresses(FakeMap(), [(ONE, 60)], (443,), 7, Settings())


def test_remove_expired() -> None:
    seeded = FakeMap()
    ends = {ip(f"192.0.2.{n}"): NOW + n * NANOSECONDS - 60 * NANOSECONDS for n in (1, 29, 30, 31, 60, 99)}
    for address, end in ends.items():
        seeded[abi.endpoint(address, 443)] = bytes(abi.Opening(end, 7, 0))
    assert remove_expired(seeded, 30) == 2
    assert [address for address in ends if opening(seeded, address, 443) is not None] == [
        ip(f"192.0.2.{n}") for n in (30, 31, 60, 99)
    ]
    assert remove_expired(seeded, 30) == 0
    assert remove_expired(seeded, 0) == 2  # those of 30 and 31; that of now is not gone yet


def test_remove_from_an_empty_map() -> None:
    assert remove_expired(FakeMap(), 30) == 0


def test_remove_what_somebody_else_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = FakeMap()
    seeded[abi.endpoint(ONE, 443)] = bytes(abi.Opening(1, 7, 0))
    monkeypatch.setattr(FakeMap, "discard", lambda self, key: False)
    assert remove_expired(seeded, 0) == 0


def test_right_after_the_machine_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is then before the clock's zero."""
    monkeypatch.setattr(time, "monotonic_ns", lambda: 5 * NANOSECONDS)
    seeded = FakeMap()
    open_addresses(seeded, [(ONE, 60)], (443,), 7, Settings())
    assert remove_expired(seeded, 30) == 0

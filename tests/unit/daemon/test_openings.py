"""Addresses that user space opens."""

from __future__ import annotations

import errno
import ipaddress
import logging

import pytest

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.openings import is_refused_as_private, open_addresses, remove_expired
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import NameRule, compile_rules

from .maps import FakeMap

ip = ipaddress.ip_address
ONE, TWO, SIX = ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::1")
PRIVATE = abi.OpeningFlag.PRIVATE
NOW = 1_000 * NANOSECONDS
POLICY = b"""version: 1
registries:
  - host: a.example
  - host: same-ports.example
  - host: b.example
    ports: [443, 5000]
  - host: private.example
    private: true
  - host: listed.example
    private: [10.1.0.0/16, "fd00:1::/64"]
"""
RULES = compile_rules(parse_policy(POLICY, "policy.yaml"), load_catalogue())
TABLES = Tables(RULES, (1, 2, 3, 4))


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "now_ns", lambda: NOW)


def rule(pattern: str = "a.example") -> NameRule:
    return next(rule for rule in RULES.names if rule.pattern.text == pattern)


A, SAME, B = rule(), rule("same-ports.example"), rule("b.example")
EXPECTS_ANY, EXPECTS_SOME = rule("private.example"), rule("listed.example")


def open_them(
    seeded: FakeMap, *addresses: tuple[abi.IPAddress, int], of: NameRule = A, settings: Settings | None = None
) -> None:
    open_addresses(seeded, addresses, of, TABLES, settings or Settings())


def opening(seeded: FakeMap, address: abi.IPAddress, of: NameRule = A) -> tuple[float, int, int] | None:
    """What is there for the ports of a rule: seconds from now until it expires, its rule and its flags."""
    raw = seeded.get(abi.opening_key(address, TABLES.port_list_of(of)))
    if raw is None:
        return None
    value = abi.Opening.from_buffer_copy(raw)
    return (value.expires_ns - NOW) / NANOSECONDS, value.rule, value.flags


def test_every_address_for_all_ports_of_the_rule() -> None:
    seeded = FakeMap()
    open_them(seeded, (ONE, 60), (SIX, 30), of=B)
    assert len(seeded.entries) == 2
    assert opening(seeded, ONE, B) == (60, B.rank, 0)
    assert opening(seeded, SIX, B) == (30, B.rank, 0)
    assert opening(seeded, ONE, A) is None


def test_rules_with_other_ports_have_entries_of_their_own() -> None:
    seeded = FakeMap()
    open_them(seeded, (ONE, 60), of=A)
    open_them(seeded, (ONE, 30), of=B)
    assert opening(seeded, ONE, A) == (60, A.rank, 0)
    assert opening(seeded, ONE, B) == (30, B.rank, 0)


def test_rules_with_the_same_ports_share_an_entry() -> None:
    seeded = FakeMap()
    open_them(seeded, (ONE, 60), of=A)
    open_them(seeded, (ONE, 90), of=SAME)
    assert len(seeded.entries) == 1
    assert opening(seeded, ONE) == (90, SAME.rank, 0)


def test_nothing_to_open() -> None:
    seeded = FakeMap()
    open_them(seeded)
    assert seeded.entries == {}


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(0, 10), (9, 10), (10, 10), (11, 11), (100, 100), (101, 100), (2**31 - 1, 100)]
)
def test_the_time_to_live_has_bounds(ttl: int, seconds: int) -> None:
    seeded = FakeMap()
    open_them(seeded, (ONE, ttl), settings=Settings(minimum_ttl=10, maximum_ttl=100))
    assert opening(seeded, ONE) == (seconds, A.rank, 0)


def test_the_longest_time_fits() -> None:
    seeded = FakeMap()
    open_them(seeded, (ONE, 2**32 - 1), settings=Settings(maximum_ttl=2**32 - 1))
    assert opening(seeded, ONE) == (2**32 - 1, A.rank, 0)


def test_a_later_end_replaces_and_an_earlier_does_not() -> None:
    seeded = FakeMap()
    steps = [
        (60, A, (60, A.rank, 0)),
        (30, SAME, (60, A.rank, 0)),
        (60, SAME, (60, A.rank, 0)),
        (90, SAME, (90, SAME.rank, 0)),
        (0, A, (90, SAME.rank, 0)),
    ]
    for ttl, of, expected in steps:
        open_them(seeded, (ONE, ttl), of=of)
        assert opening(seeded, ONE) == expected


def test_an_address_twice_in_one_answer_has_the_longer_time() -> None:
    seeded = FakeMap()
    open_them(seeded, (ONE, 90), (ONE, 60))
    assert opening(seeded, ONE) == (90, A.rank, 0)


def test_the_grace_is_left_to_the_kernel() -> None:
    seeded = FakeMap()
    open_them(seeded, (ONE, 60), settings=Settings(grace=3600))
    assert opening(seeded, ONE) == (60, A.rank, 0)


def test_ipv4_mapped_is_the_same_address() -> None:
    seeded = FakeMap()
    open_them(seeded, (ONE, 60), (ip(f"::ffff:{ONE}"), 90))
    assert len(seeded.entries) == 1
    assert opening(seeded, ONE) == (90, A.rank, 0)


# --- private addresses


@pytest.mark.parametrize(
    ("address", "of", "flags"),
    [
        pytest.param("192.0.2.1", A, 0, id="ordinary"),
        pytest.param("10.1.2.3", A, PRIVATE, id="private"),
        pytest.param("127.0.0.1", A, PRIVATE, id="this host"),
        pytest.param("169.254.169.254", A, PRIVATE, id="cloud metadata"),
        pytest.param("fd00:1::1", A, PRIVATE, id="unique local"),
        pytest.param("::1", A, PRIVATE, id="this host by IPv6"),
        pytest.param("::ffff:10.1.2.3", A, PRIVATE, id="IPv4-mapped"),
        pytest.param("64:ff9b::a01:203", A, PRIVATE, id="NAT64"),
        pytest.param("2002:a01:203::1", A, PRIVATE, id="6to4"),
        pytest.param("10.1.2.3", EXPECTS_ANY, 0, id="expected"),
        pytest.param("169.254.169.254", EXPECTS_ANY, 0, id="expected, whichever"),
        pytest.param("fd00:1::1", EXPECTS_ANY, 0, id="expected by IPv6"),
        pytest.param("10.1.2.3", EXPECTS_SOME, 0, id="in a listed network"),
        pytest.param("10.2.2.3", EXPECTS_SOME, PRIVATE, id="beside the listed network"),
        pytest.param("fd00:1::1", EXPECTS_SOME, 0, id="in a listed network of IPv6"),
        pytest.param("fd00:2::1", EXPECTS_SOME, PRIVATE, id="beside the listed network of IPv6"),
        pytest.param("192.0.2.1", EXPECTS_SOME, 0, id="ordinary beside listed networks"),
        # As in the kernel, for which both spellings are one address.
        pytest.param("::ffff:10.1.2.3", EXPECTS_SOME, 0, id="IPv4-mapped in a listed network"),
        pytest.param("::ffff:10.2.2.3", EXPECTS_SOME, PRIVATE, id="IPv4-mapped beside the listed network"),
    ],
)
def test_private(address: str, of: NameRule, flags: int) -> None:
    assert is_refused_as_private(ip(address), of) is bool(flags)
    seeded = FakeMap()
    open_them(seeded, (ip(address), 60), of=of)
    assert opening(seeded, ip(address), of) == (60, of.rank, flags)


def test_networks_of_ipv6_hold_no_ipv4_address() -> None:
    """As in the kernel, where an IPv6 range around the IPv4-mapped addresses has a hole there."""
    policy = b'version: 1\nregistries: [{host: a.example, private: ["::/0"]}]\n'
    (every,) = compile_rules(parse_policy(policy, "policy.yaml"), load_catalogue()).names
    assert not is_refused_as_private(ip("fd00::1"), every)
    assert is_refused_as_private(ip("10.1.2.3"), every)
    assert is_refused_as_private(ip("::ffff:10.1.2.3"), every)


INSIDE = ip("10.2.2.3")


@pytest.mark.parametrize("first", [A, EXPECTS_ANY], ids=["refused first", "expected first"])
@pytest.mark.parametrize("ttl", [30, 60, 90], ids=["ends earlier", "ends together", "ends later"])
def test_what_one_rule_opens_another_does_not_shut(first: NameRule, ttl: int) -> None:
    """Both have the same ports, so they share an entry."""
    seeded = FakeMap()
    second = EXPECTS_ANY if first is A else A
    open_them(seeded, (INSIDE, 60), of=first)
    open_them(seeded, (INSIDE, ttl), of=second)
    seconds = 60 if first is EXPECTS_ANY else ttl
    assert opening(seeded, INSIDE) == (seconds, EXPECTS_ANY.rank, 0)


def test_what_is_refused_names_the_rule_that_gave_it_last() -> None:
    seeded = FakeMap()
    for of, ttl in ((A, 60), (SAME, 30)):
        open_them(seeded, (INSIDE, ttl), of=of)
        assert opening(seeded, INSIDE) == (ttl, of.rank, PRIVATE)


# --- a full map


def test_a_full_map_is_told_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    seeded = FakeMap(max_entries=1)
    with caplog.at_level(logging.WARNING):
        open_them(seeded, (ONE, 60), (TWO, 60), (SIX, 60))
    assert list(seeded) == [abi.opening_key(ONE, TABLES.port_list_of(A))]
    assert [record.getMessage() for record in caplog.records] == [
        "no room for 192.0.2.2: more than 1 addresses"
    ]


def test_what_is_there_is_renewed_in_a_full_map() -> None:
    seeded = FakeMap(max_entries=1)
    for ttl in (60, 90):
        open_them(seeded, (ONE, ttl))
    assert opening(seeded, ONE) == (90, A.rank, 0)


def test_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FakeMap, key: bytes, value: bytes) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(FakeMap, "__setitem__", refuse)
    with pytest.raises(PermissionError):
        open_them(FakeMap(), (ONE, 60))


# --- cleaning


def test_remove_expired() -> None:
    seeded = FakeMap()
    ends = {ip(f"192.0.2.{n}"): NOW + n * NANOSECONDS - 60 * NANOSECONDS for n in (1, 29, 30, 31, 60, 99)}
    for address, end in ends.items():
        seeded[abi.opening_key(address, 0)] = bytes(abi.Opening(end, 7, 0))
    assert remove_expired(seeded, 30) == 2
    assert list(seeded) == [abi.opening_key(ip(f"192.0.2.{n}"), 0) for n in (30, 31, 60, 99)]
    assert remove_expired(seeded, 30) == 0
    assert remove_expired(seeded, 0) == 2  # those of 30 and 31; that of now is not gone yet


def test_remove_what_was_refused_too() -> None:
    seeded = FakeMap()
    seeded[abi.opening_key(INSIDE, 0)] = bytes(abi.Opening(NOW - 60 * NANOSECONDS, 7, PRIVATE))
    assert remove_expired(seeded, 30) == 1
    assert seeded.entries == {}


def test_remove_from_an_empty_map() -> None:
    assert remove_expired(FakeMap(), 30) == 0


def test_remove_what_somebody_else_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = FakeMap()
    seeded[abi.opening_key(ONE, 0)] = bytes(abi.Opening(1, 7, 0))
    monkeypatch.setattr(FakeMap, "discard", lambda self, key: False)
    assert remove_expired(seeded, 0) == 0


def test_right_after_the_machine_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is then before the clock's zero."""
    monkeypatch.setattr(clock, "now_ns", lambda: 5 * NANOSECONDS)
    seeded = FakeMap()
    open_them(seeded, (ONE, 60))
    assert remove_expired(seeded, 30) == 0

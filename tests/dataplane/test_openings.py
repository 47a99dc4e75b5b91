"""Addresses that user space resolved itself are open at once, and go when their time is over."""

from __future__ import annotations

import logging
from ipaddress import ip_address

import pytest
from scapy.layers.inet import TCP

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.bytecode import MapShape
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.maps import Map, raise_memlock_limit
from ram_ebpf.dataplane.openings import open_addresses, remove_expired
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.syscall import MapType
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.rules import NameRule

from . import messages as m
from .exchanges import DENIED_NAMES, ONE, REGISTRIES, SIX, ask, exchange, tell
from .messages import address
from .support import Bench, ip, rules_of

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

SETTINGS = Settings(minimum_ttl=10, maximum_ttl=1000)
PORTS = (443, 5000, 8443)


def rule_of(bench: Bench, pattern: str = "ports.test") -> NameRule:
    rule = bench.plane.tables.rule(bench.rule_of(pattern))
    assert isinstance(rule, NameRule)
    return rule


def resolve(bench: Bench, *answers: tuple[str, int], pattern: str = "ports.test") -> None:
    """What user space does with the answers for a name: addresses and their times to live."""
    addresses = [(ip_address(text), ttl) for text, ttl in answers]
    open_addresses(bench.map("seeded"), addresses, rule_of(bench, pattern), bench.plane.tables, SETTINGS)


def seconds_left(bench: Bench, text: str) -> float:
    nanoseconds: int = bench.openings("seeded")[text, PORTS].expires_ns - clock.now_ns()
    return nanoseconds / NANOSECONDS


def test_each_port_of_the_rule_and_no_other(bench: Bench) -> None:
    resolve(bench, (ONE, 300), (SIX, 300))
    for text in (ONE, SIX):
        for port in (443, 5000, 8443):
            assert bench.egress(ip(text) / TCP(dport=port, flags="S"))
        for port in (80, 0):
            assert not bench.egress(ip(text) / TCP(dport=port, flags="S"))
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 6, Reason.DENIED_PORT: 4}


def test_what_is_kept(bench: Bench) -> None:
    """One entry for all ports, with the rule that the log is to name."""
    resolve(bench, (ONE, 300))
    ((key, opening),) = bench.openings("seeded").items()
    assert key == (ONE, PORTS)
    assert (opening.rule, opening.flags) == (bench.rule_of("ports.test"), 0)


def test_time_to_live_is_bounded_and_never_shortened(bench: Bench) -> None:
    for ttl, least, most in ((0, 5, 10), (300, 290, 300), (60, 280, 300), (10**6, 900, 1000)):
        resolve(bench, (ONE, ttl))
        assert least < seconds_left(bench, ONE) <= most


def test_what_expired_goes_after_its_grace(bench: Bench) -> None:
    for text, seconds in (("192.0.2.1", -31), ("192.0.2.2", -5), ("192.0.2.3", 300)):
        bench.open("seeded", text, (443,), seconds)
    assert remove_expired(bench.map("seeded"), 30) == 1
    assert remove_expired(bench.map("seeded"), 30) == 0
    assert {text for text, _ in bench.openings("seeded")} == {"192.0.2.2", "192.0.2.3"}


def test_names_with_the_same_ports_share_an_entry(bench: Bench) -> None:
    resolve(bench, (ONE, 300), pattern=m.NAME)
    resolve(bench, (ONE, 900), pattern="other.test")
    ((_, opening),) = bench.openings("seeded").items()
    assert opening.rule == bench.rule_of("other.test")


def test_kernel_and_user_space_keep_their_own(bench: Bench) -> None:
    exchange(bench, ask("ports.test"), tell(address(ONE), name="ports.test"))
    resolve(bench, (ONE, 300))
    assert set(bench.openings("seeded")) == set(bench.openings("learned")) == {(ONE, PORTS)}


def test_private_address_that_the_rule_does_not_expect(bench: Bench) -> None:
    resolve(bench, ("10.1.2.3", 300), (ONE, 300))
    assert {text: opening.flags for (text, _), opening in bench.openings("seeded").items()} == {
        "10.1.2.3": abi.OpeningFlag.PRIVATE,
        ONE: 0,
    }
    bench.counted()
    assert not bench.egress(ip("10.1.2.3") / TCP(dport=443, flags="S"))
    assert bench.counted() == {Reason.DENIED_PRIVATE_ADDRESS: 1}


@pytest.mark.parametrize("order", [["private.test", m.NAME], [m.NAME, "private.test"]])
def test_private_address_of_two_names(bench: Bench, order: list[str]) -> None:
    """One of which expects it: what that opened, the other does not shut."""
    for pattern in order:
        resolve(bench, ("10.1.2.3", 300), pattern=pattern)
    assert bench.egress(ip("10.1.2.3") / TCP(dport=443, flags="S"))


def test_full_map_is_said_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    raise_memlock_limit()
    tables = Tables(rules_of("  - host: registry.test\n"), (2, 3, 5, 7))
    (rule,) = tables.rules.names
    seeded = Map("seeded", MapShape(MapType.HASH, len(bytes(abi.OpeningKey())), 16, 8, 0))
    addresses = [(ip_address(f"192.0.2.{number}"), 300) for number in range(1, 101)]
    try:
        with caplog.at_level(logging.WARNING):
            open_addresses(seeded, addresses, rule, tables, SETTINGS)
        assert 0 < len(list(seeded)) < len(addresses)
        # What is there already can still be prolonged.
        open_addresses(seeded, [(addresses[0][0], 900)], rule, tables, SETTINGS)
        raw = seeded[abi.opening_key(addresses[0][0], 0)]
        assert abi.Opening.from_buffer_copy(raw).expires_ns - clock.now_ns() > 800 * NANOSECONDS
    finally:
        seeded.close()
    assert "more than 8 addresses" in caplog.text

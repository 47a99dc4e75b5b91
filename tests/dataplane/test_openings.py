"""Addresses that user space resolved itself are open at once, and go when their time is over."""

from __future__ import annotations

import logging
import time
from ipaddress import ip_address

import pytest
from scapy.layers.inet import TCP

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.openings import open_addresses, remove_expired
from ram_ebpf.dataplane.plane import NANOSECONDS, Plane, Settings

from .support import Bench, ip, rules_of

REGISTRIES = """
  - host: registry.test
    ports: [443, 5000]
"""
ONE, SIX = ip_address("192.0.2.1"), ip_address("2001:db8:1::1")
SETTINGS = Settings(minimum_ttl=10, maximum_ttl=1000)


def seconds_left(bench: Bench, address: abi.IPAddress, port: int) -> float:
    opening = abi.Opening.from_buffer_copy(bench.plane.maps["seeded"][abi.endpoint(address, port)])
    nanoseconds: int = opening.expires_ns - time.monotonic_ns()
    return nanoseconds / NANOSECONDS


def test_each_port_of_the_rule_and_no_other(bench: Bench) -> None:
    open_addresses(bench.plane.maps["seeded"], [(ONE, 300), (SIX, 300)], (443, 5000), 1, SETTINGS)
    for address in ("192.0.2.1", "2001:db8:1::1"):
        assert bench.egress(ip(address) / TCP(dport=443, flags="S"))
        assert bench.egress(ip(address) / TCP(dport=5000, flags="S"))
        assert not bench.egress(ip(address) / TCP(dport=80, flags="S"))
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 4, Reason.DENIED_PORT: 2}


def test_time_to_live_is_bounded_and_never_shortened(bench: Bench) -> None:
    seeded = bench.plane.maps["seeded"]
    for ttl, least, most in ((0, 5, 10), (300, 290, 300), (60, 280, 300), (10**6, 900, 1000)):
        open_addresses(seeded, [(ONE, ttl)], (443,), 1, SETTINGS)
        for port in (443, abi.PORT_ANY):
            assert least < seconds_left(bench, ONE, port) <= most


def test_what_expired_goes_after_its_grace(bench: Bench) -> None:
    bench.open("seeded", "192.0.2.1", (443,), -31)
    bench.open("seeded", "192.0.2.2", (443,), -5)
    bench.open("seeded", "192.0.2.3", (443,), 300)
    seeded = bench.plane.maps["seeded"]
    assert remove_expired(seeded, 30) == 2  # the port, and the address itself
    assert remove_expired(seeded, 30) == 0
    left = {str(abi.unpack_address(key[:16])) for key in seeded}
    assert left == {"192.0.2.2", "192.0.2.3"}


def test_full_map_is_said_and_survived(caplog: pytest.LogCaptureFixture) -> None:
    addresses = [(ip_address(f"192.0.2.{n}"), 300) for n in range(1, 101)]
    rules = rules_of(REGISTRIES)
    with Plane(rules, SETTINGS, [], map_sizes={"seeded": 8}) as plane, caplog.at_level(logging.WARNING):
        open_addresses(plane.maps["seeded"], addresses, (443,), 1, SETTINGS)
        assert 0 < len(list(plane.maps["seeded"])) < len(addresses)
    assert "more than 8 addresses" in caplog.text

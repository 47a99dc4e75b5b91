"""What the controller makes of its parts, without a kernel."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.daemon import controller
from ram_ebpf.daemon.controller import Controller, resolvers_of, settings_of
from ram_ebpf.daemon.records import RecordWriter
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.plane import Settings, TrustedResolver
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.dns import resolvers, seeding
from ram_ebpf.dns.lookup import Answer
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.rules import RuleSet, compile_rules

from .maps import FakeMap

ip = ipaddress.ip_address


class FakePlane:
    """Tables and maps, and nothing in a kernel."""

    def __init__(self, rules: RuleSet, *_: Any) -> None:
        self.tables = Tables(rules, (1, 2, 3, 4))
        self.maps = {"seeded": FakeMap()}


def policy_of(more: str) -> Policy:
    return parse_policy(f"version: 1\nregistries: [{{host: a.example}}]\n{more}".encode(), "policy.yaml")


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The times of all lookups, each of which gives an address for an hour."""
    times: list[float] = []

    async def look_up(name: str, resolvers: Sequence[TrustedResolver], timeout: float = 2.0) -> Answer:
        times.append(time.monotonic())
        return Answer(name, ((ip("192.0.2.1"), 3600),))

    monkeypatch.setattr(seeding, "look_up", look_up)
    monkeypatch.setattr(controller, "Plane", FakePlane)
    monkeypatch.setattr(controller, "EventSource", lambda plane: None)
    monkeypatch.setattr(controller, "find_cgroup2_mount", lambda: Path("/sys/fs/cgroup"))
    monkeypatch.setattr(controller, "resolvers_of", lambda policy: [])
    return times


def test_settings() -> None:
    assert settings_of(default_policy()) == Settings()
    policy = policy_of(
        "mode: audit\ndns: {grace_seconds: 7, minimum_ttl_seconds: 2, maximum_ttl_seconds: 9}\n"
    )
    assert settings_of(policy) == Settings(abi.Mode.AUDIT, 7, 2, 9)


def test_resolvers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "host_addresses", set)
    monkeypatch.setattr(controller, "auto_resolvers", lambda: [TrustedResolver(ip("192.0.2.53"))])
    assert resolvers_of(default_policy()) == [TrustedResolver(ip("192.0.2.53"))]
    policy = policy_of("resolvers: [10.0.0.53, {address: '::1', port: 5353}]\n")
    assert resolvers_of(policy) == [
        TrustedResolver(ip("10.0.0.53")),
        TrustedResolver(ip("::1"), 5353, True),
    ]


def test_names_are_asked_again_before_the_policys_longest_time_is_over(
    lookups: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """maximum_ttl_seconds shortens what a resolver allows, so it must shorten the pause too."""
    monkeypatch.setattr(seeding, "_SHORTEST_PAUSE", 0.01)
    policy = policy_of("dns: {grace_seconds: 0, maximum_ttl_seconds: 1}\n")
    made = Controller(policy, compile_rules(policy, load_catalogue()), RecordWriter(True))
    made._seeder.start()
    try:
        assert made._seeder.wait_first_round(5)
        end = time.monotonic() + 1.5
        while len(lookups) < 2 and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        made._seeder.stop()
    assert len(lookups) >= 2

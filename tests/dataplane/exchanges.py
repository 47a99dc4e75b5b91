"""Queries and replies, what they are to open, and the policy that most modules of this folder share."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.scope import Scope

from . import messages as m
from .messages import Datagram, Query, Reply, message, question
from .support import CLIENT6, RESOLVER6, Bench

REGISTRIES = """
  - host: registry.test
  - host: other.test
  - host: ports.test
    ports: [443, 5000, 8443]
  - host: eight.test
    ports: [1, 80, 443, 5000, 5001, 8080, 8443, 65535]
  - host: docker.io
  - host: "*.one.test"
  - host: "img-*.one.test"
    ports: [5001]
  - host: "**.deep.test"
  - host: "*.deep.test"
    ports: [5002]
  - host: exact.deep.test
    ports: [5000]
  - host: "a-*-b.x.*.glob.test"
  - host: "**.z"
  - host: private.test
    private: true
  - host: ranges.test
    private: [10.20.0.0/16, 192.168.7.7, "fd00:1::/64", "64:ff9b::a1e:0/112"]
  - host: six.test
    private: ["::/0"]
  - host: "**.rule.test"
  - host: "*.star.rule.test"
    ports: [5000]
  - host: both.rule.test
  - host: again.no.rule.test
  - host: "img-*.no.rule.test"
    ports: [5001]
  - host: "*.level.rule.test"
"""
DENIED_NAMES = """
  - exact.rule.test
  - "*.no.rule.test"
  - "**.never.rule.test"
  - "bad-*.rule.test"
  - "x.*.mid.rule.test"
  - both.rule.test
  - "*.level.rule.test"
  - evil.star.rule.test
"""
_PORTS = {
    "ports.test": (443, 5000, 8443),
    "eight.test": (1, 80, 443, 5000, 5001, 8080, 8443, 65535),
    "img-*.one.test": (5001,),
    "*.deep.test": (5002,),
    "exact.deep.test": (5000,),
    "*.star.rule.test": (5000,),
    "img-*.no.rule.test": (5001,),
}

ONE, TWO, THREE = "192.0.2.1", "192.0.2.2", "192.0.2.3"
SIX, SEVEN = "2001:db8:1::6", "2001:db8:1::7"
# 63 + 63 + 63 + 51 and two literal labels: 255 octets with the length octets and the root, RFC 1035 2.3.4.
LONGEST = ".".join(["a" * 63] * 3 + ["b" * 51, "deep", "test"])
MOST_LABELS = ".".join(["z"] * 127)

Expected = dict[tuple[str, int], tuple[int, str]]
NOTHING: Expected = {}
_HEADER_FIELDS = ("flags", "identity", "questions", "answer_count", "additional")


def ask(name: str | bytes = m.NAME, qtype: int = m.A, *reasons: Reason, **fields: Any) -> Query:
    """A query that is let through to the resolver. `reasons` are counted beside that."""
    return Query(message(question(name, qtype)), (Reason.ALLOWED_RESOLVER, *reasons), **fields)


def tell(*answers: bytes, name: str | bytes = m.NAME, qtype: int = m.A, **fields: Any) -> Reply:
    """A reply that is learned, unless `counted` says otherwise."""
    header = {key: fields.pop(key) for key in _HEADER_FIELDS if key in fields}
    payload = message(question(name, qtype), answers, **{"flags": m.RESPONSE, **header})
    counted = fields.pop("counted", Reason.DNS_LEARNED)
    return Reply(payload, (counted,), **fields)


def opened(addresses: Mapping[str, int], pattern: str = m.NAME) -> Expected:
    """Seconds by address, for every port of the pattern's rule."""
    ports = _PORTS.get(pattern, (443,))
    return {(text, port): (ttl, pattern) for text, ttl in addresses.items() for port in ports}


def many(count: int) -> list[str]:
    """So many different addresses that are not private."""
    return [f"192.0.{2 + n // 200}.{1 + n % 200}" for n in range(count)]


def over_ipv6(*steps: Datagram) -> tuple[Datagram, ...]:
    """The same between IPv6 addresses."""
    return tuple(replace(step, client=CLIENT6, server=RESOLVER6) for step in steps)


def exchange(bench: Bench, *steps: Datagram, scope: Scope | None = None) -> None:
    """Sends them without looking at what is counted."""
    for step in steps:
        (bench.egress if isinstance(step, Query) else bench.ingress)(step.frame(), scope=scope)


def play(bench: Bench, *steps: Datagram, scope: Scope | None = None) -> None:
    """Sends them, and compares verdict and reasons of each."""
    for number, step in enumerate(steps):
        send = bench.egress if isinstance(step, Query) else bench.ingress
        assert send(step.frame(), scope=scope) is step.passes, f"step {number}"
        assert bench.counted() == Counter(step.counted), f"step {number}"


def check(bench: Bench, steps: tuple[Datagram, ...], expected: Expected, scope: Scope | None = None) -> None:
    """Sends them, compares verdict and reasons of each, and then all that is open, and until when."""
    started = time.monotonic()
    play(bench, *steps, scope=scope)
    learned = bench.learned(scope)
    assert {key: bench.pattern_of(rule) for key, (_, rule) in learned.items()} == {
        key: pattern for key, (_, pattern) in expected.items()
    }
    elapsed = time.monotonic() - started
    for key, (left, _) in learned.items():
        assert expected[key][0] - elapsed <= left <= expected[key][0], key

"""A controller without a kernel, and what it is given."""

from __future__ import annotations

import io
import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import pytest

from ram_ebpf.daemon import controller
from ram_ebpf.daemon.authorizing import judged_terms
from ram_ebpf.daemon.controller import Controller, Options
from ram_ebpf.daemon.records import RecordWriter
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns import seeding
from ram_ebpf.dns.encrypted import load_encrypted_resolvers
from ram_ebpf.dns.response import ADDRESS_TYPES, Answer
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.policy.ruleset import RuleSet
from ram_ebpf.policy.scope import Posture
from ram_ebpf.policy.scope_rules import rules_of
from ram_ebpf.policy.terms import STRICT, Terms

from .plane import FakePlane

ip = ipaddress.ip_address
RECOGNISING = Terms(Posture.REGISTRIES)


class FakeTrust:
    """Trusts nobody. Counts what it is asked to do."""

    def __init__(self, policy: Policy, say: Callable[[str, str], None]) -> None:
        self.resolvers: list[TrustedResolver] = []
        self.hurried = 0

    def hurry(self) -> None:
        self.hurried += 1


def policy_of(more: str) -> Policy:
    """Without the responder, which a plane without a kernel has no maps for."""
    text = f"version: 1\nregistries: [{{host: a.example}}]\n{more}refusals: {{ responder: off }}\n"
    return parse_policy(text.encode(), "policy.yaml")


def judged_by(policy: Policy) -> dict[Terms, RuleSet]:
    return {terms: rules_of(policy, load_catalogue(), terms) for terms in judged_terms(policy)}


Lookups = list[tuple[float, str, Sequence[int]]]


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    """Time, name and types of all lookups, each of which gives an address for an hour."""
    found: Lookups = []

    async def look_up(
        name: str,
        resolvers: Sequence[TrustedResolver],
        timeout: float = 2.0,
        types: Sequence[int] = ADDRESS_TYPES,
    ) -> Answer:
        found.append((time.monotonic(), name, types))
        return Answer(name, ((ip("198.51.100.1"), 3600),))

    monkeypatch.setattr(seeding, "look_up", look_up)
    monkeypatch.setattr(controller, "Plane", FakePlane)
    monkeypatch.setattr(controller, "EventSource", lambda plane: None)
    monkeypatch.setattr(controller, "find_cgroup2_mount", lambda: Path("/sys/fs/cgroup"))
    monkeypatch.setattr(controller, "Trust", FakeTrust)
    return found


class Running:
    """A controller whose thread runs. `log` has what it wrote."""

    def __init__(
        self, policy: Policy, options: Options | None = None, terms: Sequence[Terms] = (STRICT,)
    ) -> None:
        self._stream = io.StringIO()
        made = {each: rules_of(policy, load_catalogue(), each) for each in terms}
        rules = made[terms[0]]
        self.controller = Controller(
            policy,
            made,
            RecordWriter(True, self._stream),
            options,
            encrypted=load_encrypted_resolvers().known,
        )
        plane = self.controller._plane
        assert isinstance(plane, FakePlane)
        self.plane = plane
        self.rank = rules.names[0].rank

    def take(self, event: Event) -> None:
        self.controller._receiving.take(event)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    @property
    def hurried(self) -> int:
        trust: Any = self.controller._trust
        return int(trust.hurried)


@pytest.fixture
def running(lookups: Lookups) -> Iterator[Running]:
    made = Running(policy_of("denied: [denied.example]\n"))
    made.controller._concerned.learner.start()
    assert made.controller._concerned.learner.wait_first_round(5)
    lookups.clear()
    yield made
    made.controller._concerned.learner.stop()


def reply(name: str, *addresses: str, kind: str = "A") -> bytes:
    response = dns.message.make_response(dns.message.make_query(name, kind))
    for address in addresses:
        response.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", kind, address))
    return response.to_wire()


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()

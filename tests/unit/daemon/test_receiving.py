"""What becomes of what the kernel tells."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.daemon import receiving
from ram_ebpf.daemon.controller import Options
from ram_ebpf.daemon.learning import HANDED_OVER
from ram_ebpf.daemon.summing import Summing
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dns.response import Answer

from .plane import FakePlane
from .running import RECOGNISING, Lookups, Running, eventually, policy_of, reply
from .samples import DNS_EVENT, EVENT

ip = ipaddress.ip_address
ENCRYPTED = ip("1.1.1.1")  # of dns/data/encrypted.yaml


class FullSource:
    """Events without end, as a flood of refusals makes."""

    malformed = overruns = taken = 0

    @property
    def lost(self) -> int:
        return 0

    def drain(self, take: Callable[[Event], None]) -> None:
        self.taken += 1000
        for _ in range(1000):
            take(EVENT)


def test_a_signal_is_not_kept_waiting(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is counted, not told."""
    taken: list[Event] = []
    now = 1000.0

    def slowly(event: Event) -> None:
        nonlocal now
        taken.append(event)
        now += 0.1

    monkeypatch.setattr(running.controller._receiving, "_events", FullSource())
    monkeypatch.setattr(running.controller._receiving, "take", slowly)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    running.controller._receiving.drain()
    assert len(taken) == 1000
    running.controller._stop.set()
    running.controller._receiving.drain()
    running.controller._telling.report(at_once=True)
    assert 1015 <= len(taken) <= 1025
    assert [line["event"] for line in running.log] == ["events-lost"]
    assert running.log[0]["count"] == 2000 - len(taken)


class LosingSource(FullSource):
    """Loses one more each time that it is asked how many it has lost."""

    asked = 0

    @property
    def lost(self) -> int:
        self.asked += 1
        return self.asked


def test_what_is_lost_meanwhile_is_counted_too(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    source = LosingSource()
    monkeypatch.setattr(running.controller._receiving, "_events", source)
    monkeypatch.setattr(running.controller._receiving, "take", lambda event: None)
    for _ in range(3):
        running.controller._receiving.drain()
    assert running.controller._losses.totals["events-lost"] == source.asked


class SilentSource(LosingSource):
    """Whose rings stay empty."""

    def drain(self, take: Callable[[Event], None]) -> None:
        pass


def test_the_kernel_is_seldom_asked_what_is_lost_of_nothing(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes six system calls. A packet that no ring has room for is lost without anything behind it."""
    source, receiving, now = SilentSource(), running.controller._receiving, 1000.0
    monkeypatch.setattr(receiving, "_events", source)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(30):
        receiving.drain()
        now += 1.0
    assert source.asked == 3
    assert running.controller._losses.totals["events-lost"] == 3
    running.controller._stop.set()
    receiving.drain()
    assert running.controller._losses.totals["events-lost"] == 4


@pytest.mark.parametrize("reason", sorted(HANDED_OVER), ids=lambda reason: reason.slug)
def test_what_the_kernel_hands_over_is_asked_again(
    running: Running, lookups: Lookups, reason: Reason
) -> None:
    scope = running.plane.govern(3)
    message = reply("www.a.example", "192.0.2.9", kind="A")
    running.take(replace(DNS_EVENT, reason=reason, rule=running.rank, scope=3, dns_message=message))
    assert eventually(lambda: len(scope.learned.entries) == 1)
    ((_, name, types),) = lookups
    assert (name, types) == ("www.a.example", (1,))
    assert running.hurried == (reason is Reason.DNS_UNTRUSTED_SENDER)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(replace(DNS_EVENT, dns_message=reply("a.example", "192.0.2.9")), id="learned"),
        pytest.param(replace(DNS_EVENT, reason=Reason.DNS_TRUNCATED, dns_message=None), id="no message"),
        pytest.param(
            replace(DNS_EVENT, reason=Reason.DNS_UNTRUSTED_SENDER, rule=0, dns_message=reply("evil.example")),
            id="no rule",
        ),
        pytest.param(
            replace(DNS_EVENT, reason=Reason.DNS_MALFORMED, dns_message=b"\xff" * 40), id="no name in it"
        ),
        pytest.param(
            replace(DNS_EVENT, reason=Reason.DNS_LATE, dns_message=reply("a.example", "192.0.2.9")), id="late"
        ),
        pytest.param(
            replace(DNS_EVENT, reason=Reason.DNS_WRONG_QUESTION, dns_message=reply("evil.example")),
            id="another question",
        ),
        pytest.param(
            replace(DNS_EVENT, reason=Reason.DNS_PRIVATE_ADDRESS, dns_message=reply("a.example", "10.0.0.1")),
            id="private addresses",
        ),
        pytest.param(
            replace(EVENT, reason=Reason.DENIED_QUERY_NAME, dns_message=reply("a.example", "192.0.2.9")),
            id="a refusal",
        ),
    ],
)
def test_other_events_are_told_and_no_more(running: Running, lookups: Lookups, event: Event) -> None:
    scope = running.plane.govern(3)
    rule = event.rule if event.reason is Reason.DNS_UNTRUSTED_SENDER else running.rank
    running.take(replace(event, rule=rule, scope=3))
    time.sleep(0.05)
    assert lookups == []
    assert scope.learned.entries == {}


def test_an_event_that_cannot_be_told_does_not_end_enforcement(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RecursionError("a name of names")

    with monkeypatch.context() as broken:
        broken.setattr(receiving, "read_message", fail)
        running.take(replace(DNS_EVENT, dns_message=reply("a.example", "192.0.2.9")))
    assert "an event could not be told: dns-learned" in caplog.text
    running.take(EVENT)
    assert [line["event"] for line in running.log] == ["denied"]


@pytest.mark.parametrize(
    ("reason", "known"),
    [
        (Reason.DNS_LEARNED, True),
        (Reason.DNS_NOT_LISTED, True),
        (Reason.DNS_PRIVATE_ADDRESS, True),
        # Not from whom it should be, or not what was asked for.
        (Reason.DNS_NO_QUERY, False),
        (Reason.DNS_WRONG_QUESTION, False),
        (Reason.DNS_WRONG_INTERFACE, False),
        (Reason.DNS_UNTRUSTED_SENDER, False),
    ],
    ids=lambda value: value.slug if isinstance(value, Reason) else "",
)
def test_the_name_of_a_refused_address(running: Running, reason: Reason, known: bool) -> None:
    running.take(replace(DNS_EVENT, reason=reason, dns_message=reply("evil.example", "192.0.2.1")))
    running.take(EVENT)
    denied = running.log[-1]
    assert denied["event"] == "denied"
    assert denied.get("host") == ("evil.example" if known else None)


def test_a_denied_name_is_told_with_its_rule(running: Running) -> None:
    message = reply("denied.example", "192.0.2.1")
    running.take(replace(DNS_EVENT, reason=Reason.DNS_NOT_LISTED, dns_message=message))
    running.take(EVENT)
    (denied,) = running.log
    assert denied["explanation"] == "denied.example is denied by denied.example (policy.yaml:3)"


def test_all_that_is_refused_is_summed_up(running: Running, tmp_path: Path) -> None:
    """Also what the log holds back, but no connection twice."""
    summing = Summing(None, lambda *_: None, tmp_path)
    running.controller._telling.sum_up = summing.note
    for cookie in range(1, 6):
        running.take(replace(EVENT, socket_cookie=cookie))
        running.take(replace(EVENT, socket_cookie=cookie, hook=abi.Hook.INET_EGRESS, pid=None))
    running.take(replace(EVENT, verdict=abi.Verdict.ALLOW, reason=Reason.ALLOWED_LEARNED))
    assert [line["event"] for line in running.log] == ["denied", "allowed"]
    (entry,) = summing.answer()["entries"]
    assert (entry["address"], entry["count"], entry["process"]) == ("192.0.2.1", 5, "docker")
    summing.close()


def test_lookups_that_changed_nothing_are_told_on_demand(lookups: Lookups) -> None:
    event = replace(DNS_EVENT, reason=Reason.DNS_NOT_LISTED, dns_message=reply("evil.example", "192.0.2.1"))
    for log_dns in (False, True):
        made = Running(policy_of(""), Options(log_dns=log_dns))
        made.take(event)
        made.controller._concerned.learner.stop()
        assert [line["event"] for line in made.log] == ["dns"] * log_dns


# --- resolvers that speak DNS over HTTPS


def known_as_encrypted(plane: FakePlane, address: str) -> bool:
    return abi.pack_address(ip(address)) in plane.encrypted_resolvers.entries


def test_the_well_known_ones_are_known_from_the_start(running: Running) -> None:
    assert known_as_encrypted(running.plane, str(ENCRYPTED))


@pytest.mark.parametrize(
    ("name", "reason", "known"),
    [
        ("cloudflare-dns.com", Reason.DNS_NOT_LISTED, True),
        ("mozilla.cloudflare-dns.com", Reason.DNS_NOT_LISTED, True),
        ("evil.example", Reason.DNS_NOT_LISTED, False),
        ("cloudflare-dns.com", Reason.DNS_UNTRUSTED_SENDER, False),
    ],
)
def test_addresses_of_their_names_are_learned(
    running: Running, name: str, reason: Reason, known: bool
) -> None:
    running.take(replace(DNS_EVENT, reason=reason, dns_message=reply(name, "192.0.2.77")))
    assert known_as_encrypted(running.plane, "192.0.2.77") is known


@pytest.mark.parametrize(
    ("name", "port", "reason"),
    [
        ("dns.google", 443, "denied-dns-over-https"),
        ("dns.google", 8443, "denied-unknown-address"),
        ("evil.example", 443, "denied-unknown-address"),
    ],
)
def test_who_connects_before_the_kernel_knows_is_told_the_same(
    running: Running, name: str, port: int, reason: str
) -> None:
    """A client connects as soon as it has the reply, and that reply waits in the queue."""
    running.take(replace(DNS_EVENT, reason=Reason.DNS_NOT_LISTED, dns_message=reply(name, "192.0.2.77")))
    refused = replace(EVENT, reason=Reason.DENIED_UNKNOWN_ADDRESS, address=ip("192.0.2.77"), port=port)
    running.take(refused)
    line = running.log[-1]
    assert (line["event"], line["host"], line["reason"]) == ("denied", name, reason)


# --- queries over TCP, whose messages have a length in front


def test_a_query_over_tcp_is_no_reply(running: Running) -> None:
    """Whatever a client makes of length, identifier and flags: nobody answered anything."""
    # Read without regard for the length, this is a reply to the question for x.evil with one address.
    wire = b"\x00\x80\x80\x00\x00\x01\x00\x01\x00\x00\x00\x00" + b"\x01x\x04evil\x00\x00\x01\x00\x01"
    wire += b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"
    event = replace(EVENT, reason=Reason.DENIED_NOT_A_QUERY, protocol=6, dns_message=wire)
    running.take(event)
    (line,) = running.log
    assert line.get("host") != "x.evil"


# --- where registries are recognised


class FakeAsker:
    """What the controller tells somebody who asks."""

    def __init__(self) -> None:
        self.did: list[object] = []

    def note(self, answer: Answer) -> None:
        self.did.append(answer.name)

    def take(self, event: Event) -> None:
        self.did.append(event.address)
        if event.address == ip("192.0.2.66"):
            raise KeyError("a surprise")

    def tell(self) -> None:
        self.did.append("tell")


class Source:
    """Some events, once."""

    lost = malformed = overruns = taken = 0

    def __init__(self, *events: Event) -> None:
        self._events = list(events)

    def drain(self, take: Callable[[Event], None]) -> None:
        while self._events:
            self.taken += 1
            take(self._events.pop(0))


def unasked(address: str, **changes: Any) -> Event:
    return replace(
        EVENT,
        verdict=abi.Verdict.ALLOW,
        reason=Reason.ALLOWED_UNASKED,
        address=ip(address),
        **changes,
    )


@pytest.fixture
def asking(lookups: Lookups, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Running, FakeAsker]]:
    made = Running(policy_of(""), terms=(RECOGNISING,))
    fake = FakeAsker()
    monkeypatch.setattr(made.controller._concerned, "asker", fake)
    yield made, fake
    made.controller._concerned.learner.stop()


def test_names_are_known_before_it_is_asked_what_is_there(
    asking: tuple[Running, FakeAsker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply may come out of the rings behind the connection."""
    running, asker = asking
    message = reply("new.example", "192.0.2.1")
    events = [unasked("192.0.2.1"), replace(DNS_EVENT, reason=Reason.DNS_NOT_LISTED, dns_message=message)]
    monkeypatch.setattr(running.controller._receiving, "_events", Source(*events))
    running.controller._receiving.drain()
    running.controller._receiving.drain()
    assert asker.did == ["new.example", ip("192.0.2.1"), "tell", "tell"]


@pytest.mark.parametrize(
    ("reason", "known"),
    [
        (Reason.DNS_LEARNED, True),
        (Reason.DNS_NOT_LISTED, True),
        (Reason.DNS_RECOGNISED, True),
        (Reason.DNS_UNTRUSTED_SENDER, False),
    ],
)
def test_whose_replies_say_what_is_where(
    asking: tuple[Running, FakeAsker], reason: Reason, known: bool
) -> None:
    running, asker = asking
    running.take(replace(DNS_EVENT, reason=reason, dns_message=reply("new.example", "192.0.2.1")))
    assert asker.did == ["new.example"] * known


def test_what_cannot_be_asked_does_not_end_enforcement(
    asking: tuple[Running, FakeAsker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running, asker = asking
    monkeypatch.setattr(
        running.controller._receiving, "_events", Source(unasked("192.0.2.66"), unasked("192.0.2.1"))
    )
    running.controller._receiving.drain()
    assert asker.did == [ip("192.0.2.66"), ip("192.0.2.1"), "tell"]
    assert "it could not be asked what is at 192.0.2.66" in caplog.text


@pytest.mark.parametrize("log_dns", [False, True])
def test_connections_that_pass_unasked_are_told_on_demand(lookups: Lookups, log_dns: bool) -> None:
    running = Running(policy_of(""), Options(log_dns=log_dns), (RECOGNISING,))
    running.controller._concerned.learner.stop()
    running.take(unasked("192.0.2.1"))
    refused = unasked("192.0.2.2")
    running.take(replace(refused, verdict=abi.Verdict.DENY, reason=Reason.DENIED_UNASKED))
    told = [line["reason"] for line in running.log]
    assert told == ["allowed-unasked"] * log_dns + ["denied-unasked"]

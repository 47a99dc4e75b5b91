"""What user space learns, with a resolver of its own on the loopback interface and maps in memory."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import dns.message
import dns.rcode
import dns.rrset
import pytest

from ram_ebpf.daemon import learning
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.learning import Learner, _Connection
from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns import seeding
from ram_ebpf.dns.lookup import LookupFailedError
from ram_ebpf.dns.response import ADDRESS_TYPES, Answer
from ram_ebpf.dns.streams import FlowKey
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import NameRule, compile_rules
from tests.unit.dns.server import Handler, Server, fails, knows, reply, truncated

from .maps import FakeMap
from .packets import Stream, flow, packet, query
from .plane import FakePlane, FakeScopeMaps
from .samples import DNS_EVENT

ip = ipaddress.ip_address
PRIVATE = abi.OpeningFlag.PRIVATE
POLICY = b"""version: 1
registries:
  - host: "*.wild.example"
  - host: "**.inside.example"
    private: true
    ports: [443, 5000]
  - address: 198.51.100.0/24
denied: [denied.wild.example, nobody.example]
"""
EXACT = b"""version: 1
registries:
  - host: exact.example
  - host: inside.example
    private: true
    ports: [443, 5000]
  - host: "*.wild.example"
denied: [denied.example]
"""
RULES = compile_rules(parse_policy(POLICY, "policy.yaml"), load_catalogue())
NAMES = knows(
    ("a.wild.example.", 60, "A", "192.0.2.1"),
    ("a.wild.example.", 30, "AAAA", "2001:db8::1"),
    ("b.wild.example.", 60, "A", "192.0.2.2"),
    ("c.wild.example.", 60, "A", "10.1.2.3"),
    ("d.wild.example.", 60, "HTTPS", "1 . ipv4hint=192.0.2.4 ipv6hint=2001:db8::4"),
    ("a.inside.example.", 60, "A", "10.1.2.3"),
    ("denied.wild.example.", 60, "A", "192.0.2.66"),
    ("evil.example.", 60, "A", "192.0.2.66"),
    ("exact.example.", 60, "A", "192.0.2.9"),
    ("inside.example.", 60, "A", "10.1.2.9"),
)


def rule(pattern: str) -> NameRule:
    return next(rule for rule in RULES.names if rule.pattern.text == pattern)


WILD, INSIDE = rule("*.wild.example"), rule("**.inside.example")
ADDRESS_RULE = len(RULES.names) + 1


def eventually(holds: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.002)
    return holds()


class Bench:
    """A learner that runs, and what it wrote."""

    def __init__(
        self,
        resolvers: Sequence[TrustedResolver],
        policy: bytes = POLICY,
        posture: abi.Posture = abi.Posture.STRICT,
    ) -> None:
        recognising = posture is abi.Posture.REGISTRIES
        rules = compile_rules(parse_policy(policy, "policy.yaml"), load_catalogue(), recognising)
        self.plane = FakePlane(rules, posture=posture)
        self.history = NameHistory()
        self.learner = Learner(self.plane, Settings(), self.history, lambda: resolvers)
        self.scope = self.plane.govern(0)

    def __enter__(self) -> Bench:
        self.learner.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.learner.stop()

    def send(self, *events: Event) -> None:
        for event in events:
            self.learner.take_query(event)

    def is_idle(self) -> bool:
        """Whether nothing is asked any more that was to be asked once."""
        return self.asked_once() == 0

    def asked_once(self) -> int:
        """Questions that are asked once and wait or are under way."""
        askers = list(self.learner._seeder._once._askers.values())
        return sum(len(asker.waiting) + asker.under_way for asker in askers)

    def openings(self, openings: FakeMap | None = None) -> dict[str, tuple[tuple[int, ...], int, int]]:
        """Addresses that were learned, with the ports, rule and flags of each."""
        lists = self.plane.tables.rules.port_lists()
        found = {}
        for raw_key, raw in (openings or self.scope.learned).entries.items():
            key, value = abi.OpeningKey.from_buffer_copy(raw_key), abi.Opening.from_buffer_copy(raw)
            found[str(abi.unpack_address(bytes(key.address)))] = (
                lists[key.port_list],
                value.rule,
                value.flags,
            )
        return found

    def refused(self, openings: FakeMap) -> dict[str, int]:
        """Addresses that are refused on all ports, with the rule of each."""
        found = {}
        for raw_key, raw in openings.entries.items():
            key, value = abi.OpeningKey.from_buffer_copy(raw_key), abi.Opening.from_buffer_copy(raw)
            if key.port_list == abi.RefusedList.ALL:
                assert value.flags == 0
                found[str(abi.unpack_address(bytes(key.address)))] = value.rule
        return found


def released(scope: FakeScopeMaps, of: FlowKey) -> int | None:
    """Up to which segment of the connection replies may go on."""
    raw = scope.released.get(abi.flow(of.source, of.source_port, of.destination, of.destination_port))
    return struct.unpack("=I", raw)[0] if raw is not None else None


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(NAMES) as result:
        yield result


@pytest.fixture
def bench(server: Server) -> Iterator[Bench]:
    with Bench([server.resolver]) as result:
        yield result


class Lookups:
    """Stands for look_up where the order of answers matters: names in `closed` wait."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Sequence[int]]] = []
        self.closed: set[str] = set()
        self.failing: set[str] = set()

    async def __call__(
        self,
        name: str,
        resolvers: Sequence[TrustedResolver],
        timeout: float = 2.0,
        types: Sequence[int] = ADDRESS_TYPES,
    ) -> Answer:
        self.calls.append((name, types))
        while name in self.closed:
            await asyncio.sleep(0.001)
        if name in self.failing:
            raise LookupFailedError("127.0.0.1: SERVFAIL")
        return Answer(name, ((ip("192.0.2.1"), 60),))

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Lookups:
    fake = Lookups()
    monkeypatch.setattr(seeding, "look_up", fake)
    return fake


@pytest.fixture
def ordered(lookups: Lookups) -> Iterator[Bench]:
    with Bench([]) as result:
        yield result
        lookups.closed.clear()


# --- one connection


ADD, DONE = "add", "done"


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([(ADD, 1, 0, 1)], id="nothing to ask"),
        pytest.param([(ADD, 1, 0, 1), (ADD, 2, 0, 2)], id="never anything to ask"),
        pytest.param([(ADD, 1, 1, None), (DONE, 1, 1)], id="one"),
        pytest.param([(ADD, 1, 2, None), (DONE, 1, None), (DONE, 1, 1)], id="two in one segment"),
        pytest.param([(ADD, 1, 1, None), (ADD, 2, 1, None), (DONE, 1, 1), (DONE, 2, 2)], id="in order"),
        pytest.param(
            [(ADD, 1, 1, None), (ADD, 2, 1, None), (DONE, 2, None), (DONE, 1, 2)], id="second first"
        ),
        pytest.param([(ADD, 1, 1, None), (ADD, 2, 0, None), (DONE, 1, 2)], id="nothing to ask behind one"),
        pytest.param([(ADD, 1, 0, 1), (ADD, 2, 1, None), (DONE, 2, 2)], id="nothing to ask before one"),
        pytest.param(
            [(ADD, n, 1, None) for n in (1, 2, 3, 4)] + [(DONE, n, None) for n in (4, 3, 2)] + [(DONE, 1, 4)],
            id="all at last",
        ),
        pytest.param([(ADD, 3, 1, None), (DONE, 3, 3), (ADD, 7, 0, 7)], id="events that were lost"),
        pytest.param([(ADD, 0, 1, None), (ADD, 0, 1, None), (DONE, 0, None), (DONE, 0, 0)], id="no count"),
        pytest.param([(DONE, 1, None), (ADD, 1, 0, 1), (DONE, 1, None)], id="done with what is not there"),
        # Each processor has a ring of its own, so the events of one connection may come in another order.
        pytest.param([(ADD, 2, 1, None), (ADD, 1, 1, None), (DONE, 1, 1), (DONE, 2, 2)], id="events swapped"),
        pytest.param(
            [(ADD, 2, 1, None), (ADD, 1, 1, None), (DONE, 2, None), (DONE, 1, 2)],
            id="events swapped, the earlier one answered last",
        ),
        pytest.param([(ADD, 2, 0, 2), (ADD, 1, 0, None)], id="never back"),
        pytest.param([(ADD, 2, 0, 2), (ADD, 1, 1, None), (DONE, 1, None)], id="never back, with a question"),
    ],
)
def test_connection(steps: list[Any]) -> None:
    """After each step, up to which count the replies may go on if that is news."""
    connection = _Connection()
    for what, count, *more, expected in steps:
        if what == ADD:
            connection.add(count, *more)
        else:
            connection.finish(count)
        assert connection.released() == expected
        assert connection.released() is None


# --- queries over TCP


def test_a_listed_name_is_learned_before_its_reply_goes_on(bench: Bench) -> None:
    client = Stream()
    bench.send(client.send(query("a.wild.example"), WILD.rank))
    assert eventually(lambda: released(bench.scope, client.flow) == 1)
    assert bench.openings() == {"192.0.2.1": ((443,), WILD.rank, 0)}
    assert bench.plane.seeded.entries == {}
    assert bench.history.name_of(ip("192.0.2.1")) == "a.wild.example"


def test_the_reply_waits_for_that(ordered: Bench, lookups: Lookups) -> None:
    lookups.closed.add("a.wild.example")
    client = Stream()
    ordered.send(client.send(query("a.wild.example"), WILD.rank))
    assert eventually(lambda: len(lookups.calls) == 1)
    assert released(ordered.scope, client.flow) is None
    lookups.closed.clear()
    assert eventually(lambda: released(ordered.scope, client.flow) == 1)


@pytest.mark.parametrize(
    ("kind", "asked", "addresses"),
    [
        ("A", ["A"], {"192.0.2.1"}),
        ("AAAA", ["AAAA"], {"2001:db8::1"}),
        ("HTTPS", ["HTTPS"], set()),
        ("MX", ["A", "AAAA"], {"192.0.2.1", "2001:db8::1"}),
    ],
)
def test_what_the_client_asks_for_is_asked(
    bench: Bench, server: Server, kind: str, asked: list[str], addresses: set[str]
) -> None:
    client = Stream()
    bench.send(client.send(query("a.wild.example", kind), WILD.rank))
    assert eventually(lambda: released(bench.scope, client.flow) == 1)
    assert server.types() == asked
    assert set(bench.openings()) == addresses


def test_hints_for_services(bench: Bench) -> None:
    client = Stream()
    bench.send(client.send(query("d.wild.example", "HTTPS"), WILD.rank))
    assert eventually(lambda: released(bench.scope, client.flow) == 1)
    assert set(bench.openings()) == {"192.0.2.4", "2001:db8::4"}


def test_ports_and_private_addresses_are_the_rules(bench: Bench) -> None:
    client = Stream()
    bench.send(
        client.send(query("c.wild.example"), WILD.rank), client.send(query("a.inside.example"), INSIDE.rank)
    )
    assert eventually(lambda: released(bench.scope, client.flow) == 2)
    key = abi.opening_key(ip("10.1.2.3"), bench.plane.tables.port_list_of(WILD))
    assert abi.Opening.from_buffer_copy(bench.scope.learned.entries[key]).flags == PRIVATE
    key = abi.opening_key(ip("10.1.2.3"), bench.plane.tables.port_list_of(INSIDE))
    assert abi.Opening.from_buffer_copy(bench.scope.learned.entries[key]).flags == 0


@pytest.mark.parametrize("size", [1, 2, 3, 13, 20])
def test_a_query_in_pieces(bench: Bench, server: Server, size: int) -> None:
    """The kernel finds no rule for a piece; the name is matched here when it is whole."""
    client = Stream()
    data = query("a.wild.example")
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    for piece in pieces[:-1]:
        bench.send(client.send(piece))
    assert released(bench.scope, client.flow) == len(pieces) - 1
    assert server.asked == []
    bench.send(client.send(pieces[-1]))
    assert eventually(lambda: released(bench.scope, client.flow) == len(pieces))
    assert set(bench.openings()) == {"192.0.2.1"}


def test_several_queries_in_one_segment(bench: Bench) -> None:
    client = Stream()
    bench.send(client.send(query("a.wild.example") + query("evil.example") + query("b.wild.example")))
    assert eventually(lambda: released(bench.scope, client.flow) == 1)
    assert bench.is_idle()
    assert set(bench.openings()) == {"192.0.2.1", "192.0.2.2"}


@pytest.mark.parametrize(
    "name", ["evil.example", "denied.wild.example", "nobody.example", "deep.a.wild.example", "wild.example"]
)
def test_names_that_no_rule_allows_are_not_asked(bench: Bench, server: Server, name: str) -> None:
    client = Stream()
    bench.send(client.send(query(name)))
    assert released(bench.scope, client.flow) == 1
    assert bench.is_idle()
    assert server.asked == []


def test_what_is_no_query_is_not_asked(bench: Bench, server: Server) -> None:
    client = Stream()
    bench.send(client.send(b"\0\x0cGET / HTTP/1.1\r\n\r\n"), client.send(b"more of that"))
    assert released(bench.scope, client.flow) == 2
    assert server.asked == []


@pytest.mark.parametrize("data", [b"", b"garbage", packet(b"", 1000)[:30], b"\x60" + bytes(60)])
def test_a_packet_that_is_none(bench: Bench, data: bytes) -> None:
    bench.send(replace(Stream().send(b""), packet=data))
    assert bench.scope.released.entries == {}


def test_a_segment_that_is_sent_again(bench: Bench, server: Server) -> None:
    """The kernel counts it as one more; it asks nothing new."""
    client = Stream()
    first = client.send(query("a.wild.example"), WILD.rank)
    bench.send(first, client.again(first))
    assert eventually(lambda: released(bench.scope, client.flow) == 2)
    assert bench.is_idle()
    assert server.types() == ["A"]


def test_replies_go_on_in_the_order_of_their_queries(ordered: Bench, lookups: Lookups) -> None:
    """A stream cannot overtake itself: what is released later must not have come first."""
    names = [f"n{number}.wild.example" for number in range(4)]
    lookups.closed.update(names)
    client = Stream()
    ordered.send(*(client.send(query(name), WILD.rank) for name in names))
    for number, expected in ((3, None), (1, None), (0, 2), (2, 4)):
        lookups.closed.discard(names[number])
        assert eventually(lambda: ordered.asked_once() == len(lookups.closed))
        assert released(ordered.scope, client.flow) == expected


def test_an_unlisted_name_waits_for_the_listed_before_it(ordered: Bench, lookups: Lookups) -> None:
    lookups.closed.add("a.wild.example")
    client, other = Stream(), Stream(port=40001)
    ordered.send(
        client.send(query("a.wild.example"), WILD.rank),
        client.send(query("evil.example")),
        other.send(query("evil.example")),
    )
    assert released(ordered.scope, client.flow) is None
    assert released(ordered.scope, other.flow) == 1
    lookups.closed.clear()
    assert eventually(lambda: released(ordered.scope, client.flow) == 2)


def test_connections_do_not_wait_for_each_other(ordered: Bench, lookups: Lookups) -> None:
    lookups.closed.add("a.wild.example")
    slow, quick = Stream(), Stream(port=40001)
    ordered.send(
        slow.send(query("a.wild.example"), WILD.rank), quick.send(query("b.wild.example"), WILD.rank)
    )
    assert eventually(lambda: released(ordered.scope, quick.flow) == 1)
    assert released(ordered.scope, slow.flow) is None


def test_the_same_connection_of_another_scope_is_another(bench: Bench) -> None:
    """Network namespaces have the same addresses and ports."""
    other = bench.plane.govern(1)
    ours, theirs = Stream(), Stream(scope=1)
    bench.send(ours.send(query("a.wild.example"), WILD.rank), theirs.send(query("evil.example")))
    assert eventually(lambda: released(bench.scope, ours.flow) == 1)
    assert released(other, theirs.flow) == 1
    assert set(bench.openings()) == {"192.0.2.1"}
    assert other.learned.entries == {}


@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(fails(dns.rcode.SERVFAIL), id="an error"),
        pytest.param(fails(dns.rcode.NXDOMAIN), id="no such name"),
        pytest.param(lambda query, over_tcp: reply(query), id="no address"),
        pytest.param(lambda query, over_tcp: None if over_tcp else truncated(query), id="TCP closes"),
    ],
)
def test_failures_are_released_too(handler: Handler) -> None:
    client = Stream()
    with Server(handler) as server, Bench([server.resolver]) as bench:
        bench.send(client.send(query("a.wild.example"), WILD.rank))
        assert eventually(lambda: released(bench.scope, client.flow) == 1)
        assert bench.openings() == {}


def test_without_a_resolver_nothing_waits() -> None:
    client = Stream()
    with Bench([]) as bench:
        bench.send(client.send(query("a.wild.example"), WILD.rank))
        assert eventually(lambda: released(bench.scope, client.flow) == 1)


def test_a_map_that_cannot_be_written_is_released_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(learning, "open_addresses", refuse)
    client = Stream()
    bench.send(client.send(query("a.wild.example"), WILD.rank))
    assert eventually(lambda: released(bench.scope, client.flow) == 1)
    assert "resolving a.wild.example failed" in caplog.text


@pytest.mark.parametrize("when", ["before the start", "after the end"])
def test_without_a_thread_nothing_waits(lookups: Lookups, when: str) -> None:
    bench = Bench([])
    if when == "after the end":
        bench.learner.start()
        bench.learner.stop()
    client = Stream()
    bench.send(client.send(query("a.wild.example"), WILD.rank))
    assert released(bench.scope, client.flow) == 1
    assert lookups.calls == []
    bench.learner.stop()


def test_a_scope_that_is_gone_meanwhile(ordered: Bench, lookups: Lookups) -> None:
    lookups.closed.add("a.wild.example")
    client = Stream()
    ordered.send(client.send(query("a.wild.example"), WILD.rank))
    assert eventually(lambda: len(lookups.calls) == 1)
    ordered.plane.abandon(0)
    lookups.closed.clear()
    assert eventually(ordered.is_idle)
    ordered.send(client.send(query("evil.example")))
    assert ordered.scope.learned.entries == ordered.scope.released.entries == {}


# --- a client that wants more than it may have


def test_the_rule_of_one_name_opens_no_other(bench: Bench, server: Server) -> None:
    """The kernel matches what a segment looks like by itself. In the stream, which is what the resolver
    reads, it may stand in the middle of a message about something else."""
    listed = query("a.wild.example")
    inner = dns.message.make_query("evil.example", "A").to_wire()
    client = Stream()
    bench.send(
        client.send((len(inner) + len(listed)).to_bytes(2, "big") + inner), client.send(listed, WILD.rank)
    )
    assert eventually(lambda: released(bench.scope, client.flow) == 2)
    assert eventually(bench.is_idle)
    assert "evil.example" not in [name for name, _, _ in server.asked]
    assert "192.0.2.66" not in bench.openings()


def test_the_rule_of_one_name_opens_no_denied_one(bench: Bench, server: Server) -> None:
    """The same with a name that the policy denies."""
    listed = query("a.wild.example")
    inner = dns.message.make_query("denied.wild.example", "A").to_wire()
    client = Stream()
    bench.send(
        client.send((len(inner) + len(listed)).to_bytes(2, "big") + inner), client.send(listed, WILD.rank)
    )
    assert eventually(lambda: released(bench.scope, client.flow) == 2)
    assert eventually(bench.is_idle)
    assert "192.0.2.66" not in bench.openings()


def test_a_name_that_an_allowed_one_leads_to(bench: Bench) -> None:
    """It is not in the policy: the kernel knows that it is an alias, and says by which rule."""
    client = Stream()
    bench.send(client.send(query("evil.example"), WILD.rank))
    assert eventually(lambda: released(bench.scope, client.flow) == 1)
    assert bench.openings() == {"192.0.2.66": ((443,), WILD.rank, 0)}


def connections(bench: Bench) -> OrderedDict[FlowKey, learning._Connection]:
    """What is kept in mind of scope 0's."""
    return bench.learner._clients[0].connections


def test_one_scopes_connections_take_no_room_of_another_ones(ordered: Bench, lookups: Lookups) -> None:
    lookups.closed.add("a.wild.example")
    other = ordered.plane.govern(5)
    first = Stream(port=1)
    ordered.learner.take_query(replace(first.send(query("a.wild.example"), WILD.rank), scope=5))
    for port in range(2, 5000):
        ordered.send(Stream(port=port).send(b"\0"))
    assert released(other, first.flow) is None
    lookups.closed.clear()
    assert eventually(lambda: released(other, first.flow) == 1)


def test_what_is_kept_of_a_scope_goes_with_it(ordered: Bench) -> None:
    ordered.plane.govern(5)
    ordered.learner.take_query(replace(Stream(port=1).send(b"\0"), scope=5))
    ordered.plane.abandon(5)
    ordered.plane.govern(6)
    ordered.learner.take_query(replace(Stream(port=1).send(b"\0"), scope=6))
    assert sorted(ordered.learner._clients) == [6]


def test_connections_are_bounded(ordered: Bench, lookups: Lookups) -> None:
    lookups.closed.add("a.wild.example")
    first = Stream(port=1)
    ordered.send(first.send(query("a.wild.example"), WILD.rank))
    for port in range(2, 4098):
        ordered.send(Stream(port=port).send(b"\0"))
    assert len(connections(ordered)) == 4096
    assert flow(1) not in connections(ordered)
    lookups.closed.clear()  # for a connection of which nothing is known any more
    assert eventually(ordered.is_idle)
    assert released(ordered.scope, first.flow) is None
    ordered.send(first.send(query("evil.example")))
    assert released(ordered.scope, first.flow) == 2


def test_a_connection_in_use_stays(ordered: Bench) -> None:
    used = Stream(port=1)
    ordered.send(used.send(b"\0"))
    for port in range(2, 6000):
        ordered.send(Stream(port=port).send(b"\0"))
        if port % 1000 == 0:
            ordered.send(used.send(b"\0"))
    assert used.flow in connections(ordered)
    assert flow(2) not in connections(ordered)


def test_names_that_wait_are_bounded(ordered: Bench, lookups: Lookups) -> None:
    """Who asks for more at a time gets their replies at once, and nothing of them is learned."""
    lookups.closed.update(f"n{number}.wild.example" for number in range(1024))
    for number in range(1024):
        ordered.send(Stream(port=number + 1).send(query(f"n{number}.wild.example"), WILD.rank))
    assert ordered.scope.released.entries == {}
    late = Stream(port=5000)
    ordered.send(late.send(query("late.wild.example"), WILD.rank))
    assert released(ordered.scope, late.flow) == 1
    assert ordered.learner._seeder.refused == 1
    lookups.closed.clear()
    assert eventually(ordered.is_idle)
    again = Stream(port=5001)
    ordered.send(again.send(query("late.wild.example"), WILD.rank))
    assert eventually(lambda: released(ordered.scope, again.flow) == 1)
    assert "late.wild.example" in lookups.names()


# --- replies that the kernel hands over


def message(name: str, kind: str) -> bytes:
    return dns.message.make_response(dns.message.make_query(name, kind)).to_wire()


def handed_over(name: str = "a.wild.example", kind: str = "A", scope: int = 0) -> Event:
    return replace(
        DNS_EVENT,
        reason=abi.Reason.DNS_TRUNCATED,
        rule=WILD.rank,
        scope=scope,
        dns_message=message(name, kind),
    )


def test_a_reply_is_asked_again(bench: Bench, server: Server) -> None:
    bench.learner.ask_again("a.wild.example", handed_over())
    assert eventually(lambda: bench.openings() == {"192.0.2.1": ((443,), WILD.rank, 0)})
    assert server.asked == [("a.wild.example", "A", False)]
    assert bench.plane.seeded.entries == {}
    assert bench.history.name_of(ip("192.0.2.1")) == "a.wild.example"


def test_a_reply_whose_question_cannot_be_read_is_asked_for_all_addresses(bench: Bench) -> None:
    event = replace(handed_over(), dns_message=message("a.wild.example", "A")[:20])
    bench.learner.ask_again("a.wild.example", event)
    assert eventually(lambda: set(bench.openings()) == {"192.0.2.1", "2001:db8::1"})


def test_the_same_is_asked_once_at_a_time(ordered: Bench, lookups: Lookups) -> None:
    lookups.closed.add("a.wild.example")
    for _ in range(100):
        ordered.learner.ask_again("a.wild.example", handed_over())
    assert eventually(lambda: len(lookups.calls) == 1)
    time.sleep(0.02)
    assert len(lookups.calls) == 1
    lookups.closed.clear()
    assert eventually(ordered.is_idle)
    ordered.learner.ask_again("a.wild.example", handed_over())
    assert eventually(lambda: len(lookups.calls) == 2)


def test_the_same_is_asked_again_after_a_failure(ordered: Bench, lookups: Lookups) -> None:
    lookups.failing.add("a.wild.example")
    for count in (1, 2):
        ordered.learner.ask_again("a.wild.example", handed_over())
        assert eventually(lambda count=count: len(lookups.calls) == count and ordered.is_idle())  # type: ignore[misc]


def test_the_same_is_asked_again_when_there_was_no_room(
    ordered: Bench, lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(ordered.learner._seeder._once, "_room", 0)
        ordered.learner.ask_again("a.wild.example", handed_over())
    assert ordered.learner._seeder.refused == 1
    ordered.learner.ask_again("a.wild.example", handed_over())
    assert eventually(lambda: lookups.names() == ["a.wild.example"])


@pytest.mark.parametrize(
    ("name", "event"),
    [
        pytest.param("b.wild.example", handed_over("b.wild.example"), id="name"),
        pytest.param("a.wild.example", handed_over(scope=1), id="scope"),
        pytest.param("a.wild.example", replace(handed_over(), rule=INSIDE.rank), id="rule"),
        # A client asks for both kinds of addresses at the same time.
        pytest.param("a.wild.example", handed_over(kind="AAAA"), id="type"),
    ],
)
def test_what_differs_is_asked_beside_it(ordered: Bench, lookups: Lookups, name: str, event: Event) -> None:
    lookups.closed.update(["a.wild.example", "b.wild.example"])
    ordered.learner.ask_again("a.wild.example", handed_over())
    ordered.learner.ask_again(name, event)
    assert eventually(lambda: len(lookups.calls) == 2)


def test_each_scope_learns_its_own(bench: Bench) -> None:
    other = bench.plane.govern(1)
    bench.learner.ask_again("a.wild.example", handed_over(scope=1))
    assert eventually(lambda: set(bench.openings(other.learned)) == {"192.0.2.1"})
    assert bench.scope.learned.entries == {}


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(ADDRESS_RULE, id="an address"),
        pytest.param(rule("denied.wild.example").rank, id="a denied name"),
        pytest.param(0, id="none"),
        pytest.param(4711, id="unknown"),
    ],
)
def test_rules_that_open_nothing_by_name(bench: Bench, server: Server, number: int) -> None:
    bench.learner.ask_again("a.wild.example", replace(handed_over(), rule=number))
    assert eventually(lambda: len(server.asked) == 1 and bench.is_idle())
    assert bench.openings() == {}


# --- exact names


def test_exact_names_are_resolved_ahead(server: Server) -> None:
    with Bench([server.resolver], EXACT) as bench:
        assert bench.learner.wait_first_round(5)
        ranks = {item.pattern.text: item.rank for item in bench.plane.tables.rules.names}
        assert bench.openings(bench.plane.seeded) == {
            "192.0.2.9": ((443,), ranks["exact.example"], 0),
            "10.1.2.9": ((443, 5000), ranks["inside.example"], 0),
        }
        assert bench.scope.learned.entries == {}
        assert bench.history.name_of(ip("192.0.2.9")) == "exact.example"
    assert {name for name, _, _ in server.asked} == {"exact.example", "inside.example"}


def test_expired_addresses_of_exact_names_make_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bench([server.resolver], EXACT) as bench:
        assert bench.learner.wait_first_round(5)
        bench.learner.remove_expired()
        assert len(bench.plane.seeded.entries) == 2
        later = clock.now_ns() + (60 + Settings().grace + 1) * NANOSECONDS
        monkeypatch.setattr(clock, "now_ns", lambda: later)
        bench.learner.remove_expired()
        assert bench.plane.seeded.entries == {}


# --- where registries are recognised


RECOGNISING = b"""version: 1
registries:
  - host: exact.example
denied: [denied.wild.example, "*.bad.example"]
"""
OTHERS = knows(
    ("exact.example.", 60, "A", "192.0.2.9"),
    ("denied.wild.example.", 60, "A", "10.0.0.66"),
    ("quay.io.", 60, "A", "192.0.2.77"),
    ("a.bad.example.", 60, "A", "192.0.2.67"),
)


def rank_of(bench: Bench, pattern: str) -> int:
    return next(rule.rank for rule in bench.plane.tables.rules.names if rule.pattern.text == pattern)


def test_addresses_of_registries_are_known_before_anybody_asks(caplog: pytest.LogCaptureFixture) -> None:
    """Of those that the policy denies and of those of the catalogue, which need not exist."""
    with Server(OTHERS) as server, Bench([server.resolver], RECOGNISING, abi.Posture.REGISTRIES) as bench:
        assert bench.learner.wait_first_round(5)
        assert bench.refused(bench.plane.seeded) == {
            "10.0.0.66": rank_of(bench, "denied.wild.example"),
            "192.0.2.77": rank_of(bench, "quay.io"),
        }
        assert len(bench.plane.seeded.entries) == 3  # and the one that is allowed
        assert bench.scope.learned.entries == {}
        assert bench.history.name_of(ip("192.0.2.77")) == "quay.io"
    assert "registry-1.docker.io" in {name for name, _, _ in server.asked}
    assert caplog.records == []


def test_names_of_the_policy_that_have_no_address_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with Server(knows()) as server, Bench([server.resolver], RECOGNISING, abi.Posture.REGISTRIES) as bench:
        assert bench.learner.wait_first_round(5)
    told = {record.getMessage().split()[0] for record in caplog.records}
    assert told == {"exact.example", "denied.wild.example"}


@pytest.mark.parametrize("posture", abi.Posture)
@pytest.mark.parametrize("name", ["quay.io", "denied.wild.example", "a.bad.example"])
def test_replies_over_tcp_for_registries(name: str, posture: abi.Posture) -> None:
    """A strict scope opens nothing and refuses all; where they are recognised their addresses are learned."""
    with Server(OTHERS) as server, Bench([server.resolver], RECOGNISING, posture) as bench:
        client = Stream()
        bench.send(client.send(query(name)))
        assert eventually(lambda: released(bench.scope, client.flow) == 1)
        expected = 1 if posture is abi.Posture.REGISTRIES else 0
        assert len(bench.scope.learned.entries) == len(bench.refused(bench.scope.learned)) == expected


def test_each_view_has_what_its_rules_say() -> None:
    policy = parse_policy(b"version: 1\nregistries: [{ host: quay.io }]\n", "policy.yaml")
    with Server(OTHERS) as server:
        bench = Bench([], RECOGNISING, abi.Posture.REGISTRIES)
        bench.learner.stop()  # it knows of one view only
        other = bench.plane.open_view(compile_rules(policy, load_catalogue()), abi.Posture.STRICT)
        learner = Learner(bench.plane, Settings(), bench.history, lambda: [server.resolver])
        learner.start()
        try:
            assert learner.wait_first_round(5)
        finally:
            learner.stop()
    assert "192.0.2.77" in bench.refused(bench.plane.seeded)
    assert (len(other.seeded.entries), bench.refused(other.seeded)) == (1, {})
    # One question for each name and kind of address serves both.
    assert len([name for name, _, _ in server.asked if name == "quay.io"]) == 2

"""DNS over TCP: replies that matter wait until user space has looked into the queries, if it is there."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.abi import Reason, Verdict
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.settings import Settings

from . import messages as m
from .exchanges import DENIED_NAMES, ONE, REGISTRIES, ask, play, tell
from .messages import Stream, address, cname, over_tcp
from .support import CLIENT6, RESOLVER, RESOLVER6, Bench, trusted

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

STREAM = Stream()
QUERY = over_tcp(ask().payload)
REPLY = over_tcp(tell(address(ONE)).payload)


@pytest.fixture
def source(bench: Bench) -> Iterator[EventSource]:
    source = EventSource(bench.plane)
    yield source
    source.close()


def taken(source: EventSource) -> list[Event]:
    events: list[Event] = []
    source.drain(events.append)
    return events


def release(bench: Bench, queries: int, stream: Stream = STREAM) -> None:
    """What user space does when it has dealt with so many queries of a connection."""
    bench.map("released")[stream.key] = struct.pack("=I", queries)


def held(bench: Bench, stream: Stream = STREAM) -> int | None:
    """How many queries of a connection are known to have been sent."""
    raw = bench.map("held").get(stream.key)
    return abi.Hold.from_buffer_copy(raw).queries if raw else None


def waits(bench: Bench, payload: bytes = REPLY, stream: Stream = STREAM) -> bool:
    """Whether a segment with data from the resolver is dropped, and counted."""
    passed = bench.ingress(stream.down(payload))
    assert bench.counted() == ({} if passed else {Reason.DNS_HELD: 1})
    return not passed


def sends(bench: Bench, payload: bytes, *reasons: Reason, stream: Stream = STREAM) -> None:
    """A segment of the client, which always leaves."""
    assert bench.egress(stream.up(payload))
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, **dict.fromkeys(reasons, 1)}


# What a client sends, and whether replies wait then.
SEGMENTS = [
    pytest.param(QUERY, True, id="a query"),
    pytest.param(over_tcp(ask(qtype=m.AAAA).payload), True, id="an AAAA query"),
    pytest.param(over_tcp(ask(qtype=m.HTTPS).payload), True, id="an HTTPS query"),
    pytest.param(over_tcp(ask("a.b.deep.test").payload), True, id="a query that a wildcard allows"),
    pytest.param(over_tcp(ask("evil.example").payload), False, id="a query for a name that is not listed"),
    pytest.param(over_tcp(ask("exact.rule.test").payload), False, id="a query for a denied name"),
    pytest.param(over_tcp(ask(qtype=m.TXT).payload), False, id="a TXT query"),
    pytest.param(over_tcp(m.message(m.question(qclass=m.CH))), False, id="a query of class CH"),
    pytest.param(over_tcp(m.message(m.question(), additional=[m.OPT_RECORD])), True, id="a query with EDNS"),
    # What cannot be read whole may be a piece of a query.
    pytest.param(QUERY[:20], True, id="the beginning of a query"),
    pytest.param(QUERY[20:], True, id="the end of a query"),
    pytest.param(QUERY[:2], True, id="a length alone"),
    pytest.param(QUERY[:1], True, id="half a length"),
    pytest.param(QUERY[2:], True, id="a query without a length"),
    pytest.param(QUERY + b"\0", True, id="a query and the beginning of another"),
    pytest.param(QUERY + QUERY, True, id="two queries"),
    pytest.param(
        over_tcp(ask("evil.example").payload) + QUERY, True, id="a query behind one that is not listed"
    ),
    pytest.param(over_tcp(ask("evil.example").payload) * 2, True, id="two queries that are not listed"),
    pytest.param(over_tcp(b""), True, id="a length of 0"),
    pytest.param(over_tcp(b"no DNS"), True, id="a message that is none"),
    pytest.param(over_tcp(tell().payload), True, id="a reply"),
    pytest.param(
        over_tcp(m.message(m.question(), questions=2)), True, id="a query that counts two questions"
    ),
    pytest.param(over_tcp(m.message(m.question(), flags=5 << 11)), True, id="an UPDATE"),
]


@pytest.mark.parametrize(("payload", "is_held"), SEGMENTS)
def test_segment(bench: Bench, payload: bytes, is_held: bool) -> None:
    sends(bench, payload, *([Reason.DNS_OVER_TCP] if is_held else []))
    assert held(bench) == (1 if is_held else None)
    assert waits(bench) is is_held


def test_event_of_a_query(bench: Bench, source: EventSource) -> None:
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    (event,) = taken(source)
    assert (event.reason, event.verdict, event.outgoing) == (
        Reason.DNS_OVER_TCP,
        Verdict.NONE,
        True,
    )
    assert (str(event.address), event.port, event.protocol) == (RESOLVER, 53, 6)
    assert (event.detail, event.scope, event.rule) == (1, 0, bench.rule_of(m.NAME))
    assert event.packet.endswith(QUERY)
    assert event.packet == bytes(STREAM.up(QUERY))


def test_event_of_a_piece(bench: Bench, source: EventSource) -> None:
    """Which rule it is about shows only when the pieces are put together."""
    bench.egress(STREAM.up(QUERY[:7]))
    bench.egress(STREAM.up(QUERY[7:]))
    first, second = taken(source)
    assert [(event.detail, event.rule) for event in (first, second)] == [(1, 0), (2, 0)]
    assert first.packet[-7:] + second.packet[40:] == QUERY


def test_events_of_what_does_not_matter(bench: Bench, source: EventSource) -> None:
    for payload in (over_tcp(ask("evil.example").payload), over_tcp(ask(qtype=m.TXT).payload), b""):
        bench.egress(STREAM.up(payload))
    assert taken(source) == []


def test_what_does_not_matter_counts_once_something_did(bench: Bench, source: EventSource) -> None:
    """Else user space would not know which reply is whose."""
    sends(bench, over_tcp(ask("evil.example").payload))
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    for payload in (over_tcp(ask("evil.example").payload), over_tcp(ask(qtype=m.TXT).payload)):
        sends(bench, payload, Reason.DNS_OVER_TCP)
    assert [event.detail for event in taken(source)] == [1, 2, 3]
    assert held(bench) == 3


def test_query_for_what_an_allowed_name_leads_to(bench: Bench, source: EventSource) -> None:
    play(bench, ask(), tell(cname("cdn.example"), counted=Reason.DNS_ALIAS))
    taken(source)
    sends(bench, over_tcp(ask("cdn.example").payload), Reason.DNS_OVER_TCP)
    (event,) = taken(source)
    assert event.rule == bench.rule_of(m.NAME)
    assert waits(bench)


def test_released(bench: Bench) -> None:
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    assert waits(bench)
    assert waits(bench)  # TCP sends it again
    release(bench, 1)
    assert not waits(bench)
    assert not waits(bench)


def test_released_for_one_query_of_two(bench: Bench) -> None:
    for _ in range(2):
        sends(bench, QUERY, Reason.DNS_OVER_TCP)
    release(bench, 1)
    assert waits(bench)
    release(bench, 2)
    assert not waits(bench)
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    assert waits(bench)


def test_number_of_queries_may_turn_over(bench: Bench) -> None:
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    last = abi.Hold(clock.now_ns(), 0xFFFFFFFF)
    bench.map("held")[STREAM.key] = bytes(last)
    release(bench, 0xFFFFFFFF)
    assert not waits(bench)
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    assert held(bench) == 0
    assert waits(bench)
    release(bench, 0)
    assert not waits(bench)


def test_what_carries_no_data_never_waits(bench: Bench) -> None:
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    for flags in ("SA", "A", "FA", "R"):
        assert bench.ingress(STREAM.down(flags=flags))
    assert bench.counted() == {}


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(Stream(client_port=4001), id="another port"),
        pytest.param(Stream(client="10.0.0.3"), id="another address"),
        pytest.param(Stream(server=RESOLVER6, client=CLIENT6), id="another resolver"),
    ],
)
def test_other_connections_do_not_wait(bench: Bench, stream: Stream) -> None:
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    assert not waits(bench, stream=stream)
    release(bench, 1, stream)
    assert waits(bench)


def test_ipv6(bench: Bench) -> None:
    stream = Stream(server=RESOLVER6, client=CLIENT6)
    sends(bench, QUERY, Reason.DNS_OVER_TCP, stream=stream)
    assert waits(bench, stream=stream)
    release(bench, 1, stream)
    assert not waits(bench, stream=stream)


def test_resolver_on_a_port_of_its_own(bench: Bench) -> None:
    stream = Stream(server_port=5353)
    with bench.trusting(trusted(RESOLVER, port=5353)):
        sends(bench, QUERY, Reason.DNS_OVER_TCP, stream=stream)
        assert waits(bench, stream=stream)


def test_hold_ends_by_itself(bench: Bench) -> None:
    with bench.configured(Settings(hold=0.2)):
        sends(bench, QUERY, Reason.DNS_OVER_TCP)
        assert waits(bench)
        time.sleep(0.25)
        assert not waits(bench)
        # The next query has its own time.
        sends(bench, QUERY, Reason.DNS_OVER_TCP)
        assert waits(bench)


def test_hold_that_began_a_moment_later(bench: Bench) -> None:
    """Another processor may note a query between a program's look at the clock and that at the map."""
    bench.map("held")[STREAM.key] = bytes(abi.Hold(clock.now_ns() + NANOSECONDS // 2, 1))
    assert waits(bench)


def test_hold_of_no_time(bench: Bench) -> None:
    with bench.configured(Settings(hold=0)):
        sends(bench, QUERY, Reason.DNS_OVER_TCP)
        assert not waits(bench)


@pytest.mark.parametrize(
    ("seconds_ago", "is_held"),
    [
        pytest.param(0, True, id="just now"),
        # User space may write between a program's look at the clock and that at the map.
        pytest.param(-0.5, True, id="a moment later"),
        pytest.param(2, True, id="2 seconds ago"),
        pytest.param(3.1, False, id="3.1 seconds ago"),
        pytest.param(3600, False, id="an hour ago"),
    ],
)
def test_user_space_that_was_last_seen(bench: Bench, seconds_ago: float, is_held: bool) -> None:
    """Nothing waits for the dead."""
    sends(bench, QUERY, Reason.DNS_OVER_TCP)
    seen = max(clock.now_ns() - int(seconds_ago * NANOSECONDS), 0)
    bench.map("alive")[struct.pack("=I", 0)] = struct.pack("=Q", seen)
    assert waits(bench) is is_held
    bench.plane.show_alive()
    assert waits(bench)


def test_audit_holds_nothing(bench: Bench, source: EventSource) -> None:
    with bench.configured(Settings(mode=abi.Mode.AUDIT)):
        sends(bench, QUERY, Reason.DNS_OVER_TCP)
        assert not waits(bench)
    assert [event.reason for event in taken(source)] == [Reason.DNS_OVER_TCP]


def test_reply_opens_nothing(bench: Bench) -> None:
    """Anybody could have sent it; user space asks for itself."""
    bench.egress(ask().frame())
    bench.egress(STREAM.up(QUERY))
    bench.counted()
    assert waits(bench)
    release(bench, 1)
    assert not waits(bench)
    assert bench.learned() == {}
    assert len(bench.queries()) == 1


def test_connection_to_anybody_else_is_not_looked_into(bench: Bench) -> None:
    bench.open("learned", ONE, (443,), 300)
    assert bench.egress(Stream(server=ONE, server_port=443).up(QUERY))
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 1}
    assert bench.ingress(Stream(server=ONE, server_port=443).down(REPLY))
    assert bench.ingress(Stream(server=ONE).down(REPLY))
    assert bench.counted() == {}

"""What one scope asks for and learns is its own; programs, rules and resolvers are shared by all."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import TCP

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.scope_maps import SCOPE_MAPS, ScopeNumbersExhaustedError, free_number

from . import messages as m
from .exchanges import DENIED_NAMES, ONE, REGISTRIES, TWO, ask, check, exchange, many, opened, play, tell
from .messages import Stream, address
from .support import CLIENT, Bench, ip

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

NOT_AWAITED = tell(address(ONE), counted=Reason.DNS_NO_QUERY)


def test_reply_answers_queries_of_its_scope_alone(bench: Bench) -> None:
    play(bench, ask())
    play(bench, NOT_AWAITED, scope=bench.other)
    assert bench.learned(bench.other) == {}
    # Nor has that spoilt the query of the other scope.
    check(bench, (tell(address(ONE)),), opened({ONE: 300}))
    assert bench.learned(bench.other) == {}


def test_each_scope_learns_its_own(bench: Bench) -> None:
    check(bench, (ask(), tell(address(ONE))), opened({ONE: 300}))
    check(bench, (ask(), tell(address(TWO))), opened({TWO: 300}), scope=bench.other)
    assert set(bench.learned()) == {(ONE, 443)}


def test_address_is_open_in_the_scope_that_asked(bench: Bench) -> None:
    exchange(bench, ask(), tell(address(ONE)))
    packet = ip(ONE) / TCP(dport=443, flags="S")
    bench.counted()
    assert bench.egress(packet)
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 1}
    assert not bench.egress(packet, scope=bench.other)
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 1}


def test_what_user_space_resolved_is_open_in_all(bench: Bench) -> None:
    bench.open("seeded", ONE, (443,), 300)
    for scope in (bench.scope, bench.other):
        assert bench.egress(ip(ONE) / TCP(dport=443, flags="S"), scope=scope)
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 2}


def test_unlisted_query_of_another_scope_is_not_known(bench: Bench) -> None:
    play(bench, ask("evil.example"))
    play(bench, tell(name="evil.example", counted=Reason.DNS_NO_QUERY), scope=bench.other)
    play(bench, tell(name="evil.example", counted=Reason.DNS_NOT_LISTED))


def test_connection_from_outside_is_known_in_its_scope(bench: Bench) -> None:
    remote = "198.51.100.1"
    bench.ingress(ip(CLIENT, remote) / TCP(sport=40000, dport=8080, flags="S"))
    answer = ip(remote, CLIENT) / TCP(sport=8080, dport=40000, flags="SA")
    assert not bench.egress(answer, scope=bench.other)
    assert bench.egress(answer)


def test_connection_to_a_resolver_is_held_in_its_scope(bench: Bench) -> None:
    connection = Stream()
    bench.egress(connection.up(m.over_tcp(ask().payload)))
    answer = connection.down(m.over_tcp(tell(address(ONE)).payload))
    assert bench.ingress(answer, scope=bench.other)
    assert not bench.ingress(answer)


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_event_says_which_scope(bench: Bench, second: bool) -> None:
    scope = bench.other if second else bench.scope
    source = EventSource(bench.plane)
    events: list[Event] = []
    try:
        source.drain(lambda event: None)  # on 5.4, what others have left in the queue
        bench.egress(ip("198.51.100.1") / TCP(dport=443, flags="S"), scope=scope)
        exchange(bench, ask(), tell(address(ONE)), scope=scope)
        bench.egress(Stream().up(m.over_tcp(ask().payload)), scope=scope)
        source.drain(events.append)
    finally:
        source.close()
    assert {(event.reason, event.scope) for event in events} == {
        (Reason.DENIED_UNKNOWN_ADDRESS, scope.number),
        (Reason.DNS_LEARNED, scope.number),
        (Reason.DNS_OVER_TCP, scope.number),
    }


Flood = Callable[[int], bytes]


def queries_for(name: str) -> Flood:
    """Query packets that differ in id and port."""
    packet = ask(name).frame()
    port, identity = 14 + 20, 14 + 20 + 8

    def one(number: int) -> bytes:
        return b"".join(
            (
                packet[:port],
                struct.pack("!H", 1024 + number // 0x8000),
                packet[port + 2 : identity],
                struct.pack("!H", number & 0xFFFF),
                packet[identity + 2 :],
            )
        )

    return one


@pytest.mark.heavy
@pytest.mark.parametrize("name", [m.NAME, "evil.example"], ids=["listed", "unlisted"])
def test_flood_of_queries_evicts_nothing_of_another_scope(bench: Bench, name: str) -> None:
    awaited = [ask(client_port=port) for port in range(2000, 2200)]
    exchange(bench, *awaited)
    exchange(bench, ask(), tell(*map(address, many(200))))
    before = [sorted(bench.map(table).items()) for table in SCOPE_MAPS]
    flood = queries_for(name)
    for number in range(100_000):
        bench.egress(flood(number), scope=bench.other)
    assert [sorted(bench.map(table).items()) for table in SCOPE_MAPS] == before
    table = "queries" if name == m.NAME else "unlisted"
    assert 0 < len(bench.queries(table, bench.other)) <= SCOPE_MAPS[table].max_entries
    # Within the flooded scope only what is of its own kind went.
    bench.counted()
    exchange(bench, *(tell(address(ONE), client_port=query.client_port) for query in awaited))
    assert bench.counted() == {Reason.DNS_LEARNED: len(awaited)}


@pytest.mark.heavy
def test_flood_of_unlisted_queries_evicts_no_listed_one(bench: Bench) -> None:
    awaited = [ask(client_port=port) for port in range(2000, 2200)]
    exchange(bench, *awaited)
    flood = queries_for("evil.example")
    for number in range(20_000):
        bench.egress(flood(number))
    bench.counted()
    exchange(bench, *(tell(address(ONE), client_port=query.client_port) for query in awaited))
    assert bench.counted() == {Reason.DNS_LEARNED: len(awaited)}


def test_numbers_are_used_again(bench: Bench) -> None:
    """And nothing of the scope that had it before is left."""
    first = bench.plane.open_scope()
    exchange(bench, ask(), tell(address(ONE)), scope=first)
    assert bench.learned(first) != {}
    bench.plane.close_scope(first)
    second = bench.plane.open_scope()
    try:
        assert second.number == first.number
        assert bench.learned(second) == {}
        bench.counted()
        assert not bench.egress(ip(ONE) / TCP(dport=443, flags="S"), scope=second)
    finally:
        bench.plane.close_scope(second)
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 1}


def test_programs_of_a_scope_whose_maps_are_gone_refuse(bench: Bench) -> None:
    """It cannot be, short of a mistake of ours: then nothing is learned, and nothing may leave."""
    scope = bench.other
    places = {name: bench.plane.maps[name] for name in SCOPE_MAPS}
    key = struct.pack("=I", scope.number)
    bench.open("seeded", ONE, (443,), 300)
    for place in places.values():
        place.discard(key)
    try:
        assert not bench.egress(ip(ONE) / TCP(dport=443, flags="S"), scope=scope)
        play(bench, scope=scope)
        assert bench.egress(ask().frame(), scope=scope)
        assert bench.ingress(tell(address(ONE)).frame(), scope=scope)
        assert bench.ingress(Stream().down(b"data"), scope=scope)
        assert bench.egress(Stream().up(b"data"), scope=scope)
    finally:
        for name, place in places.items():
            place[key] = struct.pack("=I", scope.maps[name].fd)
    assert bench.learned() == {}


def test_too_many_scopes_are_refused_in_words() -> None:
    assert free_number(set()) == 0
    assert free_number({0, 1, 3}) == 2
    with pytest.raises(ScopeNumbersExhaustedError, match=f"{abi.SCOPES_MAX} scopes"):
        free_number(set(range(abi.SCOPES_MAX)))

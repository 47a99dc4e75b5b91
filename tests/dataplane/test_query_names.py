"""dns.allowed_names_only: names that no rule allows are not asked for, so they carry nothing out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason, Verdict
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.settings import Settings

from . import messages as m
from .exchanges import DENIED_NAMES, LONGEST, ONE, REGISTRIES, ask, play, tell
from .messages import Stream, address, cname, labels, message, over_tcp, question, wire
from .support import CLIENT6, RESOLVER, RESOLVER6, Bench, ip

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

STRICT = Settings(allowed_names_only=True)
ALLOWED, NAME, NO_QUERY = (
    Reason.ALLOWED_RESOLVER,
    Reason.DENIED_QUERY_NAME,
    Reason.DENIED_NOT_A_QUERY,
)
EVIL = "c2VjcmV0.evil.example"


@pytest.fixture
def strict(bench: Bench) -> Iterator[Bench]:
    with bench.configured(STRICT):
        yield bench


def edns(name: str, *options: bytes) -> bytes:
    """A query with EDNS (RFC 6891), with options such as cookies."""
    record = m.record(m.OPT, b"".join(options), owner=b"\0", ttl=0, rclass=1232)
    return message(question(name), additional=[record])


def padding(size: int) -> bytes:
    """RFC 7830."""
    return b"\0\x0c" + size.to_bytes(2, "big") + bytes(size)


# DNS messages, and what becomes of them over UDP, and over TCP with a length in front.
MESSAGES = [
    pytest.param(message(question()), ALLOWED, id="an A query for an allowed name"),
    pytest.param(message(question("ReGiStRy.TeSt")), ALLOWED, id="one in mixed case"),
    pytest.param(message(question(qtype=m.AAAA)), ALLOWED, id="an AAAA query"),
    pytest.param(message(question(qtype=m.HTTPS)), ALLOWED, id="an HTTPS query"),
    pytest.param(message(question(qtype=m.TXT)), ALLOWED, id="a TXT query for an allowed name"),
    pytest.param(message(question(qtype=m.ANY)), ALLOWED, id="a query for everything about an allowed name"),
    pytest.param(message(question(qclass=m.CH)), ALLOWED, id="a query of class CH for an allowed name"),
    pytest.param(message(question("x.y.deep.test")), ALLOWED, id="a name that a wildcard allows"),
    pytest.param(message(question("img-7.one.test")), ALLOWED, id="a name that a glob allows"),
    pytest.param(message(question(LONGEST)), ALLOWED, id="an allowed name of 255 octets"),
    pytest.param(edns(m.NAME), ALLOWED, id="EDNS and an allowed name"),
    pytest.param(edns(m.NAME, padding(100)), ALLOWED, id="EDNS with an option and an allowed name"),
    pytest.param(message(question(EVIL)), NAME, id="an A query for another name"),
    pytest.param(message(question(EVIL, m.AAAA)), NAME, id="an AAAA query for another name"),
    pytest.param(message(question(EVIL, m.HTTPS)), NAME, id="an HTTPS query for another name"),
    pytest.param(message(question(EVIL, m.TXT)), NAME, id="a TXT query for another name"),
    pytest.param(message(question(EVIL, 0xFFFE)), NAME, id="a query of an unknown type"),
    pytest.param(message(question(EVIL, qclass=m.CH)), NAME, id="a query of class CH for another name"),
    pytest.param(edns(EVIL), NAME, id="EDNS and another name"),
    pytest.param(message(question("5.0.20.10.in-addr.arpa", m.PTR)), NAME, id="a reverse lookup"),
    pytest.param(message(question(f"{m.NAME}.corp.example")), NAME, id="an allowed name and a search domain"),
    pytest.param(message(question("exact.rule.test")), NAME, id="a denied name"),
    pytest.param(message(question(b"\0", 2)), NAME, id="the root"),
    pytest.param(message(question(labels(b"registry.test"))), NAME, id="an allowed name as one label"),
    pytest.param(message(question(labels(b"a b", b"deep", b"test"))), NAME, id="a label that no host has"),
    pytest.param(message(question(), questions=0), NO_QUERY, id="no question"),
    pytest.param(message(question() + question(EVIL), questions=2), NO_QUERY, id="two questions"),
    pytest.param(message(question(), flags=m.RESPONSE), NO_QUERY, id="a reply"),
    pytest.param(message(question(), flags=5 << 11), NO_QUERY, id="an UPDATE"),
    pytest.param(message(question(), flags=4 << 11), NO_QUERY, id="a NOTIFY"),
    pytest.param(message(wire(m.NAME)), NO_QUERY, id="a question that is cut off"),
    pytest.param(message(m.QUESTION + b"\0\1\0\1"), NO_QUERY, id="a name that is a pointer"),
    pytest.param(message(question(labels(*[b"z"] * 128))), NO_QUERY, id="a name of 128 labels"),
    pytest.param(message(b"", questions=1)[:11], NO_QUERY, id="half a header"),
    pytest.param(b"secret", NO_QUERY, id="no DNS"),
    pytest.param(b"\0", NO_QUERY, id="one octet"),
]


@pytest.mark.parametrize(("payload", "reason"), MESSAGES)
def test_over_udp(strict: Bench, payload: bytes, reason: Reason) -> None:
    packet = m.Query(payload, ()).frame()
    assert strict.egress(packet) is (reason is ALLOWED)
    # That it is no query is counted beside the verdict, as it is where such packets may leave.
    more = {Reason.DNS_NOT_A_QUERY: 1} if reason is NO_QUERY else {}
    assert strict.counted() == {reason: 1, **more}


@pytest.mark.heavy
@pytest.mark.parametrize(("payload", "reason"), MESSAGES)
def test_over_tcp(strict: Bench, payload: bytes, reason: Reason) -> None:
    assert strict.egress(Stream().up(over_tcp(payload))) is (reason is ALLOWED)
    counted = strict.counted()
    counted.pop(Reason.DNS_OVER_TCP, None)
    assert counted == {reason: 1}


@pytest.mark.heavy
@pytest.mark.parametrize(("payload", "reason"), MESSAGES)
def test_without_it_everything_leaves(bench: Bench, payload: bytes, reason: Reason) -> None:
    assert bench.egress(m.Query(payload, ()).frame())
    assert bench.egress(Stream().up(over_tcp(payload)))
    assert bench.counted()[ALLOWED] == 2


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(over_tcp(ask().payload)[:20], id="half a query"),
        pytest.param(over_tcp(ask().payload)[20:], id="the other half"),
        pytest.param(over_tcp(ask().payload)[:1], id="half a length"),
        pytest.param(over_tcp(ask().payload)[:2], id="a length alone"),
        pytest.param(ask().payload, id="a query without a length"),
        pytest.param(over_tcp(ask().payload, ask().payload), id="two queries for allowed names"),
        pytest.param(over_tcp(ask().payload, ask(EVIL).payload), id="a second query for another name"),
        pytest.param(over_tcp(ask().payload) + b"\0", id="a query and one octet"),
        pytest.param(over_tcp(b""), id="an empty message"),
    ],
)
def test_stream_that_is_not_one_query_a_segment(strict: Bench, payload: bytes) -> None:
    """Clients send a query at once, and one only: what comes in pieces could be put together to any name."""
    assert not strict.egress(Stream().up(payload))
    assert strict.counted() == {NO_QUERY: 1}


def test_connection_itself(strict: Bench) -> None:
    for flags in ("S", "A", "FA", "R"):
        assert strict.egress(Stream().up(flags=flags))
    assert strict.counted() == {ALLOWED: 4}


@pytest.mark.parametrize("flags", ["S", "A", "FA", "R"])
def test_data_in_segments_that_usually_have_none(strict: Bench, flags: str) -> None:
    """TCP Fast Open (RFC 7413) puts it into the first one."""
    assert not strict.egress(Stream().up(over_tcp(ask(EVIL).payload), flags))
    assert strict.counted() == {NAME: 1}


def test_datagram_without_data(strict: Bench) -> None:
    assert strict.egress(ip(RESOLVER) / UDP(sport=4000, dport=53))
    assert strict.counted() == {ALLOWED: 1}


def test_over_ipv6(strict: Bench) -> None:
    for name, leaves in ((m.NAME, True), (EVIL, False)):
        assert strict.egress(ask(name, client=CLIENT6, server=RESOLVER6).frame()) is leaves


def test_allowed_name_is_learned(strict: Bench) -> None:
    play(strict, ask(), tell(address(ONE)))
    assert set(strict.learned()) == {(ONE, 443)}


def test_what_an_allowed_name_leads_to_may_be_asked_for(strict: Bench) -> None:
    assert not strict.egress(ask("cdn.example").frame())
    strict.counted()
    play(strict, ask(), tell(cname("cdn.example"), counted=Reason.DNS_ALIAS))
    play(strict, ask("cdn.example"), tell(address(ONE), name="cdn.example"))
    assert strict.egress(Stream().up(over_tcp(ask("cdn.example", m.TXT).payload)))
    assert not strict.egress(ask("x.cdn.example").frame())


def test_refused_query_is_not_remembered(strict: Bench) -> None:
    strict.egress(ask(EVIL).frame())
    assert strict.queries("unlisted") == []


def test_query_repeats_do_not_wear_it_out(strict: Bench) -> None:
    """A socket that was refused once is refused again, and one that was allowed is looked into again."""
    assert not strict.egress(ask(EVIL).frame(), repeat=3)
    assert strict.egress(ask().frame(), repeat=3)
    assert strict.counted() == {NAME: 3, ALLOWED: 3}


def udp_of(payload: bytes) -> Packet:
    return ip(RESOLVER) / UDP(sport=4000, dport=53) / Raw(payload)


@pytest.mark.parametrize(
    ("packet", "reason", "payload"),
    [
        pytest.param(udp_of(ask(EVIL).payload), NAME, ask(EVIL).payload, id="a name over UDP"),
        pytest.param(udp_of(b"secret"), NO_QUERY, b"secret", id="no query over UDP"),
        pytest.param(
            Stream().up(over_tcp(ask(EVIL).payload)), NAME, over_tcp(ask(EVIL).payload), id="a name over TCP"
        ),
    ],
)
def test_event(strict: Bench, packet: Packet, reason: Reason, payload: bytes) -> None:
    """It brings the query, so that the log can say which name it was."""
    source = EventSource(strict.plane)
    events: list[Event] = []
    try:
        strict.egress(packet)
        source.drain(events.append)
    finally:
        source.close()
    (event,) = events
    assert (event.reason, event.verdict, event.outgoing) == (reason, Verdict.DENY, True)
    assert (str(event.address), event.port) == (RESOLVER, 53)
    assert event.dns_message == payload
    assert event.packet == bytes(packet)


def test_audit_lets_it_pass_and_says_so(bench: Bench) -> None:
    with bench.configured(Settings(mode=abi.Mode.AUDIT, allowed_names_only=True)):
        assert bench.egress(ask(EVIL).frame())
        assert bench.egress(udp_of(b"secret"))
    assert bench.counted() == {NAME: 1, NO_QUERY: 1, Reason.DNS_NOT_A_QUERY: 1}


def test_audit_still_knows_the_reply(bench: Bench) -> None:
    """To a query that only would have been refused."""
    with bench.configured(Settings(mode=abi.Mode.AUDIT, allowed_names_only=True)):
        bench.egress(ask(EVIL).frame())
        bench.counted()
        play(bench, tell(address(ONE), name=EVIL, counted=Reason.DNS_NOT_LISTED))

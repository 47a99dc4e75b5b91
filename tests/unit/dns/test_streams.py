"""DNS over TCP, from packets made by hand."""

from __future__ import annotations

import ipaddress
import itertools
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import dns.message
import dns.name
import dns.opcode
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ram_ebpf.dns import streams
from ram_ebpf.dns.streams import FlowKey, QueryStreams, Question, flow_of

ip = ipaddress.ip_address
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
V4 = FlowKey(ip("10.77.0.10"), 40000, ip("10.77.0.53"), 53)
V6 = FlowKey(ip("fd77::10"), 40000, ip("fd77::53"), 53)
WRAP = 1 << 32


@dataclass(frozen=True)
class Seg:
    """One segment of a connection; `at` counts from its first byte."""

    at: int
    data: bytes = b""
    flags: int = ACK

    def packet(self, isn: int = 1000) -> bytes:
        return packet(V4, (isn + 1 + self.at) % WRAP, self.data, self.flags)


def packet(
    flow: FlowKey,
    sequence: int,
    data: bytes = b"",
    flags: int = ACK,
    *,
    options: bytes = b"",
    ip_options: bytes = b"",
    extensions: bytes = b"",
    first: int = 6,
) -> bytes:
    """An IP packet; `extensions` are IPv6 headers, of which the first is of type `first`."""
    header = (20 + len(options)) // 4 << 4
    ports = flow.source_port, flow.destination_port
    tcp = struct.pack("!HHIIBBHHH", *ports, sequence, 1, header, flags, 65535, 0, 0) + options + data
    source, destination = flow.source.packed, flow.destination.packed
    if flow.source.version == 4:
        length = 20 + len(ip_options) + len(tcp)
        version = 0x40 | (20 + len(ip_options)) // 4
        start = struct.pack("!BBHHHBBH", version, 0, length, 1, 0x4000, 64, 6, 0)
        return start + source + destination + ip_options + tcp
    start = struct.pack("!IHBB", 6 << 28, len(extensions) + len(tcp), first, 64)
    return start + source + destination + extensions + tcp


def query(name: str, kind: str = "A", **more: int) -> bytes:
    """A query with the length in front."""
    wire = dns.message.make_query(name, kind, **more).to_wire()  # type: ignore[arg-type]
    return framed(wire)


def framed(wire: bytes) -> bytes:
    return len(wire).to_bytes(2, "big") + wire


def asked(*names: str, flow: FlowKey = V4, kind: int = 1) -> list[Question]:
    return [Question(name, kind, flow) for name in names]


def feed(queries: QueryStreams, segments: Sequence[Seg], isn: int = 1000) -> list[Question]:
    return [question for segment in segments for question in queries.feed(segment.packet(isn))]


SYN_FIRST = Seg(-1, flags=SYN)
GHCR = query("ghcr.io.")


def test_one_query() -> None:
    queries = QueryStreams()
    segments = [SYN_FIRST, Seg(0), Seg(0, GHCR, PSH | ACK), Seg(len(GHCR)), Seg(len(GHCR), flags=FIN | ACK)]
    assert feed(queries, segments) == asked("ghcr.io")
    assert queries.broken == queries.held == 0


@pytest.mark.parametrize("flow", [V4, V6])
def test_types_and_letters(flow: FlowKey) -> None:
    queries = QueryStreams()
    data = query("GHCR.Io.", "AAAA") + query("ghcr.io", "HTTPS")
    assert queries.feed(packet(flow, 5, data)) == [
        Question("ghcr.io", 28, flow),
        Question("ghcr.io", 65, flow),
    ]


def test_several_messages_in_one_segment() -> None:
    data = query("a.example") + query("b.example") + query("c.example")[:-1]
    queries = QueryStreams()
    assert feed(queries, [SYN_FIRST, Seg(0, data)]) == asked("a.example", "b.example")
    assert feed(queries, [Seg(len(data), b"\1")]) == asked("c.example")


@pytest.mark.parametrize("syn", [True, False])
def test_one_byte_each(syn: bool) -> None:
    data = query("a.example") + query("b.example")
    queries = QueryStreams()
    found = feed(queries, [SYN_FIRST] * syn + [Seg(n, data[n : n + 1]) for n in range(len(data))])
    assert found == asked("a.example", "b.example")


def test_the_length_alone_first() -> None:
    """As clients with two writes send it."""
    assert feed(QueryStreams(), [Seg(0, GHCR[:2]), Seg(2, GHCR[2:])]) == asked("ghcr.io")


def test_out_of_order() -> None:
    segments = [SYN_FIRST, Seg(20, GHCR[20:]), Seg(10, GHCR[10:20]), Seg(0, GHCR[:10])]
    assert feed(QueryStreams(), segments) == asked("ghcr.io")


def test_the_sequence_numbers_wrap() -> None:
    data = query("a.example") + query("b.example")
    for isn in range(WRAP - len(data) - 2, WRAP):
        segments = [SYN_FIRST, Seg(30, data[30:]), Seg(0, data[:30])]
        assert feed(QueryStreams(), segments, isn) == asked("a.example", "b.example")


def test_data_in_the_syn() -> None:
    """TCP Fast Open (RFC 7413)."""
    assert feed(QueryStreams(), [Seg(-1, GHCR, SYN), Seg(0, GHCR)]) == asked("ghcr.io")


def test_retransmissions() -> None:
    queries = QueryStreams()
    end = len(GHCR)
    segments = [SYN_FIRST, SYN_FIRST, Seg(0, GHCR), Seg(0, GHCR), SYN_FIRST, Seg(0, GHCR[:7]), Seg(0, GHCR)]
    segments += [Seg(end, flags=FIN), Seg(end, flags=FIN), Seg(0, GHCR, FIN), Seg(0, GHCR), SYN_FIRST]
    assert feed(queries, segments) == asked("ghcr.io")
    assert len(queries) == 1


def test_the_first_bytes_win() -> None:
    """As in the receiver: what came is not overwritten, and each gap is filled."""
    other = query("evil.io.")
    assert len(other) == len(GHCR)
    segments = [SYN_FIRST, Seg(14, GHCR[14:18]), Seg(20, GHCR[20:25]), Seg(5, other[5:]), Seg(0, GHCR[:6])]
    mixed = bytearray(other)
    mixed[14:18], mixed[20:25], mixed[:5] = GHCR[14:18], GHCR[20:25], GHCR[:5]
    expected = QueryStreams().feed(packet(V4, 1, bytes(mixed)))
    assert expected
    assert feed(QueryStreams(), segments) == expected
    late = [SYN_FIRST, Seg(1, GHCR[1:]), Seg(0, other)]
    assert feed(QueryStreams(), late) == asked("ghcr.io")


def test_a_flow_without_syn_begins_with_its_first_segment() -> None:
    queries = QueryStreams()
    assert feed(queries, [Seg(500, GHCR)]) == asked("ghcr.io")
    assert feed(queries, [Seg(500 + len(GHCR), query("b.example"))]) == asked("b.example")


def test_the_syn_comes_late() -> None:
    data = query("a.example") + query("b.example")
    split = len(query("a.example"))
    for segments in (
        [Seg(0, data), SYN_FIRST, Seg(0, data)],
        [Seg(split, data[split:]), SYN_FIRST, Seg(0, data[:split])],
        [Seg(split, data[split:]), Seg(0, data[:split]), SYN_FIRST],
        [Seg(split, data[split:], FIN), Seg(0, data[:split]), SYN_FIRST],
    ):
        found = feed(QueryStreams(), segments)
        assert sorted(found, key=lambda question: question.name) == asked("a.example", "b.example")


def test_the_first_half_comes_last_without_a_syn() -> None:
    """The second half is read as if a message began there, until the first one tells better."""
    queries = QueryStreams()
    assert feed(queries, [Seg(8, GHCR[8:])]) == []
    assert queries.broken == 1  # two bytes of zero
    assert feed(queries, [Seg(0, GHCR[:8])]) == asked("ghcr.io")
    assert queries.broken == 0


@pytest.mark.parametrize("end", [FIN, RST])
def test_the_same_ports_again(end: int) -> None:
    """With a SYN, and without, right behind the old connection as from TIME-WAIT (tcp_twsk_unique())."""
    queries = QueryStreams()
    first = [SYN_FIRST, Seg(0, GHCR), Seg(len(GHCR), flags=end | ACK)]
    assert feed(queries, first) == asked("ghcr.io")
    again = len(GHCR) + 1 + 65538
    assert feed(queries, [Seg(again, query("b.example"))]) == asked("b.example")
    assert feed(queries, [Seg(-1, flags=SYN), Seg(0, query("c.example"))], 7_000_000) == asked("c.example")
    assert feed(queries, [Seg(0, query("d.example"))], 2_000_000_000) == asked("d.example")
    assert len(queries) == 1


def test_a_new_syn_ends_what_was_before() -> None:
    queries = QueryStreams()
    assert feed(queries, [SYN_FIRST, Seg(0, GHCR[:20])]) == []
    assert feed(queries, [SYN_FIRST, Seg(0, query("b.example"))], 9000) == asked("b.example")
    assert queries.held == 0


def test_reset() -> None:
    queries = QueryStreams()
    assert feed(queries, [SYN_FIRST, Seg(0, GHCR[:20]), Seg(20, flags=RST)]) == []
    assert queries.held == 0
    assert feed(queries, [Seg(20, GHCR[20:]), Seg(0, GHCR[:20])]) == asked()


def test_what_comes_after_the_end_is_cut() -> None:
    queries = QueryStreams()
    end = len(GHCR)
    assert feed(queries, [SYN_FIRST, Seg(end, flags=FIN), Seg(0, GHCR + query("b.example"))]) == asked(
        "ghcr.io"
    )
    assert queries.held == 0


def test_an_unfinished_message_is_dropped_with_its_connection() -> None:
    queries = QueryStreams()
    assert feed(queries, [SYN_FIRST, Seg(0, GHCR[:20], FIN)]) == []
    assert queries.held == 0


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\0",
        b"\0\1x",
        b"\0\x0b" + bytes(11),
        framed(struct.pack("!6H", 1, 0x100, 1, 0, 0, 0)),
        framed(struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1"),
        framed(struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\0\0\1\0"),
        framed(struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + b"\x40a\0\0\1\0\1"),
        framed(struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1"),
    ],
)
def test_garbage_gives_the_flow_up(garbage: bytes) -> None:
    queries = QueryStreams()
    segments = [SYN_FIRST, Seg(0, query("a.example"))]
    start = len(query("a.example"))
    segments += [Seg(start, garbage), Seg(start + len(garbage), GHCR), Seg(start, GHCR)]
    assert feed(queries, segments) == asked("a.example")
    assert (queries.broken, queries.held) == (1, 0)
    # Others go on, and so does a new connection.
    other = replace(V4, source_port=40001)
    assert queries.feed(packet(other, 5, GHCR)) == asked("ghcr.io", flow=other)
    assert feed(queries, [SYN_FIRST, Seg(0, GHCR)], 77777) == asked("ghcr.io")


def test_a_broken_flow_stays_broken_however_long_it_gets() -> None:
    queries = QueryStreams()
    assert feed(queries, [SYN_FIRST, Seg(0, b"\0\0")]) == []
    at = 2
    for _ in range(200):
        assert feed(queries, [Seg(at, GHCR + bytes(60000))]) == []
        at += len(GHCR) + 60000
    assert (queries.broken, queries.held, len(queries)) == (1, 0, 1)


@pytest.mark.parametrize(
    "message",
    [
        dns.message.make_response(dns.message.make_query("evil.io", "A")).to_wire(),
        struct.pack("!6H", 1, dns.opcode.UPDATE << 11, 1, 0, 0, 0) + b"\4evil\2io\0\0\6\0\1",
        struct.pack("!6H", 1, 6 << 11, 0, 0, 0, 0) + struct.pack("!HHII", 1, 8, 0, 0),  # DSO keepalive
        struct.pack("!6H", 1, 0x100, 0, 0, 0, 0),
        struct.pack("!6H", 1, 0x100, 2, 0, 0, 0) + b"\4evil\2io\0\0\1\0\1" * 2,
        dns.message.make_query("evil.io", "TXT", "CH").to_wire(),
    ],
    ids=["a response", "an update", "a session", "no question", "two questions", "another class"],
)
def test_other_messages_are_passed_over(message: bytes) -> None:
    queries = QueryStreams()
    assert queries.feed(packet(V4, 5, framed(message) + GHCR)) == asked("ghcr.io")
    assert queries.broken == 0


def test_names_of_strange_bytes() -> None:
    wire = dns.message.make_query(dns.name.Name([b"a.\x1b\0", b"example", b""]), "A").to_wire()
    assert QueryStreams().feed(packet(V4, 5, framed(wire))) == asked(r"a\.\027\000.example")
    root = dns.message.make_query(".", "NS").to_wire()
    assert QueryStreams().feed(packet(V4, 5, framed(root))) == asked(".", kind=2)


def test_a_message_of_the_greatest_length() -> None:
    """And the next one behind it, from a client that writes both at once."""
    big = framed(dns.message.make_query("big.example", "A", use_edns=0).to_wire().ljust(65535, b"\0"))
    data = big + GHCR
    queries = QueryStreams()
    segments = [Seg(at, data[at : at + 32000]) for at in range(0, len(data), 32000)]
    assert feed(queries, [SYN_FIRST, *segments]) == asked("big.example", "ghcr.io")
    assert feed(queries, [SYN_FIRST, *reversed(segments)], 9_000_000) == asked("big.example", "ghcr.io")
    assert (queries.broken, queries.held) == (0, 0)


def test_more_than_the_bound_of_a_flow() -> None:
    queries = QueryStreams()
    most = 128 * 1024
    assert feed(queries, [SYN_FIRST, Seg(most - 60000, bytes(60000))]) == []
    assert (queries.broken, queries.held) == (0, most)
    assert feed(queries, [Seg(most, b"x"), Seg(0, GHCR)]) == []
    assert (queries.broken, queries.held) == (1, 0)


def test_more_than_the_bound_of_all_flows() -> None:
    queries = QueryStreams()
    for port in range(1, 400):
        flow = replace(V4, source_port=port)
        queries.feed(packet(flow, 1000, flags=SYN))
        queries.feed(packet(flow, 1001 + 65535, bytes(60000)))
        assert queries.held <= 16 * 1024 * 1024
    assert len(queries) < 200
    # The last one is still there.
    assert queries.feed(packet(flow, 1001, GHCR)) == asked("ghcr.io", flow=flow)


def test_the_least_recently_used_flow_goes() -> None:
    queries = QueryStreams()
    for port in range(1, 1025):
        assert queries.feed(packet(replace(V4, source_port=port), 1000, GHCR[:20])) == []
    assert queries.feed(packet(replace(V4, source_port=1), 1020, GHCR[20:25])) == []
    assert queries.feed(packet(replace(V4, source_port=2000), 1000, GHCR[:20])) == []
    assert len(queries) == 1024
    one = replace(V4, source_port=1)
    assert queries.feed(packet(one, 1025, GHCR[25:])) == asked("ghcr.io", flow=one)
    assert queries.feed(packet(replace(V4, source_port=2), 1020, GHCR[20:])) == []


def test_acknowledgements_begin_nothing() -> None:
    queries = QueryStreams()
    assert feed(queries, [Seg(0), Seg(5, flags=FIN | ACK), Seg(5, flags=RST), Seg(-1, flags=SYN | ACK)]) == []
    assert len(queries) == 1  # of the last one, which is a SYN too


def test_padding_behind_the_packet() -> None:
    assert QueryStreams().feed(packet(V4, 5, GHCR) + bytes(20)) == asked("ghcr.io")
    assert QueryStreams().feed(packet(V6, 5, GHCR) + bytes(20)) == asked("ghcr.io", flow=V6)


def test_a_packet_that_was_cut() -> None:
    """What is there of it counts, and a retransmission fills the rest."""
    queries = QueryStreams()
    whole = Seg(0, GHCR, FIN).packet()
    assert queries.feed(Seg(-1, flags=SYN).packet()) == []
    assert queries.feed(whole[:50]) == []
    assert queries.feed(whole) == asked("ghcr.io")


@pytest.mark.parametrize("options", [b"", b"\1\1\1\0", b"\1" * 40])
def test_options(options: bytes) -> None:
    assert QueryStreams().feed(packet(V4, 5, GHCR, options=options, ip_options=options)) == asked("ghcr.io")
    assert flow_of(packet(V4, 5, ip_options=options)) == V4


HOP = bytes([43, 0, *bytes(6)])
ROUTING = bytes([60, 2, *bytes(22)])
DESTINATION = bytes([51, 0, *bytes(6)])
AUTHENTICATION = bytes([44, 4, *bytes(22)])
ATOMIC = bytes([6, 0, 0, 0, 1, 2, 3, 4])


def test_extension_headers() -> None:
    chain = HOP + ROUTING + DESTINATION + AUTHENTICATION + ATOMIC
    whole = packet(V6, 5, GHCR, extensions=chain, first=0)
    assert QueryStreams().feed(whole) == asked("ghcr.io", flow=V6)
    for length in range(40 + len(chain) + 20):
        assert flow_of(whole[:length]) is None


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\x40",
        packet(V4, 5, GHCR)[:39],
        b"\x44" + packet(V4, 5, GHCR)[1:],  # a header shorter than it may be
        b"\x4f" + packet(V4, 5, GHCR)[1:],  # and one that reaches into the data
        b"\x55" + packet(V4, 5, GHCR)[1:],  # IP version 5
        packet(V4, 5, GHCR)[:2] + b"\0\x27" + packet(V4, 5, GHCR)[4:],  # shorter than its headers
        packet(V4, 5, GHCR)[:6] + b"\x20\0" + packet(V4, 5, GHCR)[8:],  # the first fragment
        packet(V4, 5, GHCR)[:6] + b"\0\1" + packet(V4, 5, GHCR)[8:],  # a later one
        packet(V4, 5, GHCR)[:9] + b"\x11" + packet(V4, 5, GHCR)[10:],  # UDP
        packet(V4, 5, GHCR)[:32] + b"\x40" + packet(V4, 5, GHCR)[33:],  # a TCP header that is too short
        packet(V4, 5, b"")[:32] + b"\xf0" + packet(V4, 5, b"")[33:],  # and too long
        packet(V6, 5, GHCR)[:59],
        packet(V6, 5, GHCR, first=50),  # ESP
        packet(V6, 5, GHCR, first=59),  # no next header
        packet(V6, 5, GHCR, extensions=b"\6\0\0\1" + bytes(4), first=44),  # more fragments
        packet(V6, 5, GHCR, extensions=b"\6\0\0\x08" + bytes(4), first=44),
        packet(V6, 5, GHCR, extensions=b"\6\xff" + bytes(6), first=0),  # longer than the packet
        packet(V6, 5, GHCR, extensions=bytes(8) * 16 + b"\6" + bytes(7), first=0),  # too many
    ],
    ids=lambda damaged: f"{len(damaged)} bytes",
)
def test_packets_that_are_none(damaged: bytes) -> None:
    queries = QueryStreams()
    assert flow_of(damaged) is None
    assert queries.feed(damaged) == []
    assert len(queries) == 0


LABEL = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20)
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
ASKED = st.lists(st.tuples(NAME, st.sampled_from(["A", "AAAA", "HTTPS", "TXT"])), min_size=1, max_size=5)


@st.composite
def streams_and_segments(draw: st.DrawFn) -> tuple[list[Question], list[Seg], int]:
    """What is asked, and the stream's segments in any order and number; each byte is in one at least."""
    wanted = draw(ASKED)
    data = b"".join(query(name, kind) for name, kind in wanted)
    cuts = draw(st.lists(st.integers(1, len(data) - 1), max_size=12))
    edges = sorted({0, *cuts, len(data)})
    spans = list(itertools.pairwise(edges))
    place = st.integers(0, len(data))
    spans += draw(st.lists(st.tuples(place, place), max_size=6))  # duplicates and overlaps
    segments = [Seg(min(span), data[min(span) : max(span)]) for span in spans]
    if draw(st.booleans()):
        segments += [Seg(len(data), flags=FIN | ACK)]
    order = draw(st.permutations(segments))
    expected = [Question(name, dns.rdatatype.from_text(kind), V4) for name, kind in wanted]
    return expected, order, draw(st.integers(0, WRAP - 1))


@settings(max_examples=300, deadline=None)
@given(streams_and_segments())
def test_any_split_in_any_order(case: tuple[list[Question], list[Seg], int]) -> None:
    expected, segments, isn = case
    queries = QueryStreams()
    assert feed(queries, [SYN_FIRST, *segments, *segments], isn) == expected
    assert (queries.broken, queries.held) == (0, 0)


@settings(max_examples=300, deadline=None)
@given(streams_and_segments(), st.integers(0, 40), st.booleans())
def test_any_split_in_any_order_with_the_syn_late_or_never(
    case: tuple[list[Question], list[Seg], int], when: int, never: bool
) -> None:
    """All that was asked is found once; a wrong start may read something else before it is put right."""
    expected, segments, isn = case
    if not never:
        segments = [*segments[:when], SYN_FIRST, *segments[when:]]
    queries = QueryStreams()
    found = feed(queries, [*segments, *segments], isn)
    for question in set(expected):
        assert found.count(question) == expected.count(question)
    assert queries.broken == 0


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    queries = QueryStreams()
    queries.feed(data)
    queries.feed(b"\x45" + data)
    queries.feed(b"\x60" + data)
    flow_of(data)


@given(st.data())
def test_any_packet_that_is_cut_or_changed(data: st.DataObject) -> None:
    flow = data.draw(st.sampled_from([V4, V6]))
    whole = bytearray(packet(flow, 5, GHCR + query("b.example", "AAAA")))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    queries = QueryStreams()
    queries.feed(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    queries.feed(bytes(whole))


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_any_segments_keep_the_bounds(rng: random.Random) -> None:
    """The counters tell the truth, and no bound is passed, whatever comes."""
    queries = QueryStreams(most_flows=3)
    near = [0, 1, 2, 100, 4095, 4096, 65535, 131071, 131072, 4 << 20, (4 << 20) + 1, WRAP // 2, WRAP - 1]
    for _ in range(120):
        flow = replace(V4, source_port=rng.randrange(5))
        data = rng.choice([b"", b"\0", b"\0\0", GHCR, GHCR[:9], GHCR * 3, rng.randbytes(9), bytes(60000)])
        sequence = (rng.choice(near) + rng.randrange(3)) % WRAP
        queries.feed(packet(flow, sequence, data, rng.choice([ACK, ACK, ACK, SYN, FIN, RST, SYN | FIN])))
        flows = queries._flows.values()
        assert len(queries) == len(flows) <= 3
        assert queries.held == sum(len(item.data) for item in flows) == sum(len(item.have) for item in flows)
        assert all(len(item.data) <= streams._MOST_BYTES and item.parsed <= len(item.data) for item in flows)
        assert queries.broken >= sum(item.broken for item in flows)

"""DNS queries over TCP (RFC 1035 4.2.2, RFC 7766), read from the packets that a client sends.

The kernel's programs hand over whole IP packets of a client's segments to a resolver's port, not always in
the order in which they were sent: each processor has a ring of its own. So nothing is taken for granted
here: segments come in any order and more than once, and the SYN may come late or never.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import dns.exception
import dns.name
import dns.opcode
import dns.rdataclass

from ram_ebpf.dataplane.abi import IPAddress

_MOST_FLOWS = 1024
_MOST_BYTES = 128 * 1024  # of one flow: a message (65535 bytes), and a packet that brings its end
_MOST_HELD = 4 * 1024 * 1024  # of all flows
# What is kept of a flow whose SYN was not seen, since earlier segments may still come.
_HISTORY = 4 * 1024
# No client has that much under way to a resolver, and a new connection's first sequence number is farther
# from the last one's (RFC 6528) unless the kernel took a connection in TIME-WAIT over.
_WINDOW = 4 * 1024 * 1024

_TCP = 6
_EXTENSIONS = frozenset({0, 43, 60})  # hop-by-hop, routing, destination options (RFC 8200 4)
_FRAGMENT = 44
_AUTHENTICATION = 51
_MOST_EXTENSIONS = 16
_FIN, _SYN, _RST = 1, 2, 4
_SEQUENCES = 1 << 32

_DNS_HEADER = struct.Struct("!6H")
_QUESTION_END = struct.Struct("!2H")
_RESPONSE = 0x8000


@dataclass(frozen=True)
class FlowKey:
    """One direction of a TCP connection: from the client to the resolver."""

    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int


class Question(NamedTuple):
    """What a client asked for, class IN. `name` is in lower case without a trailing dot."""

    name: str
    rdtype: int
    flow: FlowKey


class _Segment(NamedTuple):
    """`length` is that of the payload on the wire; of a packet that was cut, `payload` is the beginning."""

    flow: FlowKey
    sequence: int
    flags: int
    payload: bytes
    length: int

    @property
    def first(self) -> int:
        """The sequence number of the first payload byte: a SYN takes one (RFC 9293 3.4)."""
        return (self.sequence + bool(self.flags & _SYN)) % _SEQUENCES


class _GarbageError(ValueError):
    """A message that no DNS client sends: where the next one begins is not known either."""


def flow_of(packet: bytes) -> FlowKey | None:
    """The connection of a raw IP packet; None for what is not TCP, is a fragment, or is malformed."""
    segment = _parse(packet)
    return segment.flow if segment is not None else None


def _parse(packet: bytes) -> _Segment | None:
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        return _parse_v4(packet)
    return _parse_v6(packet) if version == 6 else None


def _parse_v4(packet: bytes) -> _Segment | None:
    if len(packet) < 20:
        return None
    offset = (packet[0] & 15) * 4
    end, fragment = int.from_bytes(packet[2:4], "big"), int.from_bytes(packet[6:8], "big")
    if offset < 20 or packet[9] != _TCP or fragment & 0x3FFF:  # more fragments, or an offset
        return None
    source, destination = ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20])
    return _parse_tcp(packet, offset, end, source, destination)


def _parse_v6(packet: bytes) -> _Segment | None:
    if len(packet) < 40:
        return None
    source, destination = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
    kind, offset, end = packet[6], 40, 40 + int.from_bytes(packet[4:6], "big")
    for _ in range(_MOST_EXTENSIONS):
        if kind == _TCP:
            return _parse_tcp(packet, offset, end, source, destination)
        if min(end, len(packet)) - offset < 8:
            return None
        if kind in _EXTENSIONS:
            length = (packet[offset + 1] + 1) * 8
        elif kind == _AUTHENTICATION:
            length = (packet[offset + 1] + 2) * 4  # RFC 4302 2.2
        elif kind == _FRAGMENT and not int.from_bytes(packet[offset + 2 : offset + 4], "big") & 0xFFF9:
            length = 8  # an atomic fragment, which is whole (RFC 6946)
        else:
            return None
        kind, offset = packet[offset], offset + length
    return None


def _parse_tcp(
    packet: bytes, offset: int, end: int, source: IPAddress, destination: IPAddress
) -> _Segment | None:
    """`offset` and `end` of the segment in the packet, which may have been cut before `end`."""
    if min(end, len(packet)) - offset < 20:
        return None
    source_port, destination_port, sequence = struct.unpack_from("!HHI", packet, offset)
    start = offset + (packet[offset + 12] >> 4) * 4
    if not offset + 20 <= start <= min(end, len(packet)):
        return None
    flow = FlowKey(source, source_port, destination, destination_port)
    return _Segment(flow, sequence, packet[offset + 13], packet[start:end], end - start)


def _distance(sequence: int, base: int) -> int:
    """How far a sequence number is behind another one in the stream; negative when it is before it."""
    return (sequence - base + _SEQUENCES // 2) % _SEQUENCES - _SEQUENCES // 2


class _Flow:
    """The bytes of one connection that are still needed."""

    def __init__(self, base: int) -> None:
        self.base = base  # the sequence number of data[0]
        self.data = bytearray()
        self.have = bytearray()  # 1 for each byte of `data` that has come, 0 for each that is missing
        self.parsed = 0  # where in `data` the next message begins
        self.syn: int | None = None  # sequence number of the SYN
        self.end: int | None = None  # sequence number behind the last byte: of the FIN
        self.anchored = False  # nothing can come before `base`
        self.told: set[int] = set()  # sequence numbers of messages that were read, and may be read again
        self.broken = False

    def is_of(self, segment: _Segment) -> bool:
        """Whether a segment belongs to this connection, and not to a later one of the same addresses."""
        back = _distance(self.base, segment.first)
        if segment.flags & _SYN:
            return segment.sequence == self.syn if self.syn is not None else 0 <= back <= _WINDOW
        if self.end is not None:
            return 0 <= _distance(self.end, segment.first) <= _WINDOW
        return abs(back) <= _WINDOW

    def take(self, segment: _Segment) -> list[tuple[str, int]]:
        """Adds a segment; returns the names and types of the questions that are complete now."""
        if segment.flags & _RST:
            self._close(segment.sequence)
            return []
        if segment.flags & _SYN and self.syn is None:
            self.syn = segment.sequence
            self._rewind(_distance(self.base, segment.first))
            self.anchored = True
        if segment.flags & _FIN and self.end is None:
            self.end = (segment.first + segment.length) % _SEQUENCES
        self._put(segment.first, segment.payload)
        found = self._read()
        if len(self.data) > _HISTORY:
            self.anchored = True
        if self.anchored:
            self._forget(len(self.data) if self.broken or self._is_whole() else self.parsed)
            if not self.data:
                self.told.clear()
        return found

    def _put(self, first: int, payload: bytes) -> None:
        offset = _distance(first, self.base)
        if self.broken and self.anchored:
            self._forget(max(offset + len(payload), 0))  # so that is_of() keeps up
            return
        if offset < 0 and payload:
            self._rewind(-offset)
            offset = _distance(first, self.base)
            payload, offset = payload[max(-offset, 0) :], max(offset, 0)
        if self.end is not None:
            payload = payload[: max(_distance(self.end, self.base) - offset, 0)]
        if not payload:
            return
        if offset + len(payload) > _MOST_BYTES:
            self.broken = self.anchored = True
            return
        self._fill(offset, payload)

    def _fill(self, offset: int, payload: bytes) -> None:
        """Puts bytes where there are none yet: the first to come win, as in the receiver's buffer."""
        end = offset + len(payload)
        missing = bytes(max(end - len(self.data), 0))
        self.data += missing
        self.have += missing
        hole = self.have.find(0, offset, end)
        while hole >= 0:
            stop = self.have.find(1, hole, end)
            stop = end if stop < 0 else stop
            self.data[hole:stop] = payload[hole - offset : stop - offset]
            self.have[hole:stop] = b"\1" * (stop - hole)
            hole = self.have.find(0, stop, end)

    def _ready(self) -> int:
        """How many bytes have come without a gap."""
        gap = self.have.find(0, self.parsed)
        return len(self.have) if gap < 0 else gap

    def _is_whole(self) -> bool:
        return self.end is not None and self._ready() >= _distance(self.end, self.base)

    def _read(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        ready = self._ready()
        while not self.broken and ready - self.parsed >= 2:
            start = self.parsed + 2
            stop = start + int.from_bytes(self.data[self.parsed : start], "big")
            if stop > ready and stop - start >= _DNS_HEADER.size:
                break
            where = (self.base + self.parsed) % _SEQUENCES
            try:
                question = _read_question(bytes(self.data[start:stop]))
            except _GarbageError:
                self.broken = True
                break
            if question is not None and where not in self.told:
                found.append(question)
            if self.anchored:
                self.told.discard(where)
            else:
                self.told.add(where)
            self.parsed = stop
        return found

    def _rewind(self, count: int) -> None:
        """Begins the flow `count` bytes earlier: what was read so far was read from a wrong start."""
        if count <= 0 or self.anchored or count + len(self.data) > _HISTORY:
            return
        self.data[:0] = bytes(count)
        self.have[:0] = bytes(count)
        self.base = (self.base - count) % _SEQUENCES
        self.parsed = 0
        self.broken = False

    def _forget(self, count: int) -> None:
        del self.data[:count]
        del self.have[:count]
        self.base = (self.base + count) % _SEQUENCES
        self.parsed = max(self.parsed - count, 0)

    def _close(self, sequence: int) -> None:
        self.anchored = True
        self._forget(len(self.data))
        if self.end is None:
            self.end = (self.base + max(_distance(sequence, self.base), 0)) % _SEQUENCES


def _read_question(message: bytes) -> tuple[str, int] | None:
    """Name and type of a query's question; None for a message without one of class IN.

    Raises _GarbageError.
    """
    if len(message) < _DNS_HEADER.size:
        raise _GarbageError
    _, flags, questions, _, _, _ = _DNS_HEADER.unpack_from(message)
    # Such as the keepalive of DNS Stateful Operations, which has no question (RFC 8490 5.4).
    if flags & _RESPONSE or (flags >> 11) & 15 != dns.opcode.QUERY or questions != 1:
        return None
    try:
        name, length = dns.name.from_wire(message, _DNS_HEADER.size)
        rdtype, rdclass = _QUESTION_END.unpack_from(message, _DNS_HEADER.size + length)
    except (dns.exception.DNSException, ValueError, IndexError, struct.error) as error:
        raise _GarbageError from error
    return (name.to_text(omit_final_dot=True).lower(), rdtype) if rdclass == dns.rdataclass.IN else None


class QueryStreams:
    """Follows the TCP connections of clients to resolvers and reads the questions in them.

    Bounded whatever is fed: 1024 flows, of which the least recently used go; 128 KiB of one flow, bytes
    that came out of order included; 16 MiB of all. `broken` counts the flows that were given up, since what
    they carry is no DNS or they went beyond that bound; nothing more is read from them.
    """

    def __init__(self, most_flows: int = _MOST_FLOWS) -> None:
        self.broken = 0
        self._most_flows = most_flows
        self._flows: OrderedDict[FlowKey, _Flow] = OrderedDict()
        self._held = 0

    def __len__(self) -> int:
        """How many flows are known, ended ones included: their retransmissions may still come."""
        return len(self._flows)

    @property
    def held(self) -> int:
        """How many bytes of all flows are kept."""
        return self._held

    def feed(self, packet: bytes) -> list[Question]:
        """Takes a raw IP packet; returns the questions that it completed, in the order of the stream."""
        segment = _parse(packet)
        if segment is None:
            return []
        flow = self._flow_for(segment)
        if flow is None:
            return []
        held, broken = len(flow.data), flow.broken
        found = flow.take(segment)
        self._held += len(flow.data) - held
        self.broken += flow.broken - broken
        while len(self._flows) > self._most_flows or (self._held > _MOST_HELD and len(self._flows) > 1):
            self._held -= len(self._flows.popitem(last=False)[1].data)
        return [Question(name, rdtype, segment.flow) for name, rdtype in found]

    def _flow_for(self, segment: _Segment) -> _Flow | None:
        flow = self._flows.get(segment.flow)
        if flow is not None and flow.is_of(segment):
            self._flows.move_to_end(segment.flow)
            return flow
        # An acknowledgement alone begins nothing.
        if segment.flags & _RST or not (segment.payload or segment.flags & _SYN):
            return None
        if flow is not None:
            self._held -= len(flow.data)
        flow = self._flows[segment.flow] = _Flow(segment.first)
        self._flows.move_to_end(segment.flow)
        return flow

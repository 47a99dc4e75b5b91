"""DNS messages octet by octet (RFC 1035 4), so that they can be wrong in every way.

Those that are right are also made by dnspython in the tests, as a second opinion on the format.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet, Raw

from ram_ebpf.dataplane.abi import Reason, flow

from .support import CLIENT, RESOLVER, ip

A, CNAME, PTR, TXT, AAAA, DNAME, OPT, SVCB, HTTPS, ANY = 1, 5, 12, 16, 28, 39, 41, 64, 65, 255
IN, CH = 1, 3
QR, TC, RD, RA = 0x8000, 0x0200, 0x0100, 0x0080
RESPONSE = QR | RD | RA
NXDOMAIN, SERVFAIL = 3, 2
HEADER = 12  # octets, so the question's name begins here

NAME = "registry.test"


def pointer(offset: int) -> bytes:
    """A compression pointer (RFC 1035 4.1.4) to an octet of the message."""
    return struct.pack("!H", 0xC000 | offset)


QUESTION = pointer(HEADER)


def labels(*parts: bytes) -> bytes:
    """A name on the wire from its labels; a label may hold anything."""
    return b"".join(bytes((len(part),)) + part for part in parts) + b"\0"


def wire(name: str) -> bytes:
    """A name on the wire from its presentation form, without escapes."""
    return labels(*(part.encode() for part in name.split("."))) if name else b"\0"


def message(
    question: bytes,
    answers: Sequence[bytes] = (),
    *,
    flags: int = RD,
    identity: int = 7,
    questions: int = 1,
    answer_count: int | None = None,
    additional: Sequence[bytes] = (),
) -> bytes:
    """A whole message. The counts may lie."""
    count = len(answers) if answer_count is None else answer_count
    header = struct.pack("!6H", identity, flags, questions, count, 0, len(additional))
    return header + question + b"".join(answers) + b"".join(additional)


def question(name: str | bytes = NAME, qtype: int = A, qclass: int = IN) -> bytes:
    """The question section."""
    return (wire(name) if isinstance(name, str) else name) + struct.pack("!2H", qtype, qclass)


def record(
    rtype: int,
    data: bytes,
    owner: bytes = QUESTION,
    ttl: int = 300,
    rclass: int = IN,
    length: int | None = None,
) -> bytes:
    """One resource record. The length may lie."""
    head = struct.pack("!HHIH", rtype, rclass, ttl, len(data) if length is None else length)
    return owner + head + data


def address(text: str, owner: bytes = QUESTION, ttl: int = 300) -> bytes:
    """An A or AAAA record."""
    parsed = ipaddress.ip_address(text)
    return record(A if parsed.version == 4 else AAAA, parsed.packed, owner, ttl)


def cname(target: str | bytes, owner: bytes = QUESTION, ttl: int = 300, length: int | None = None) -> bytes:
    """A CNAME record."""
    return record(CNAME, wire(target) if isinstance(target, str) else target, owner, ttl, length=length)


# Keys of SvcParams (RFC 9460 14.3.2).
ALPN, IPV4HINT, IPV6HINT, UNKNOWN_PARAM = 1, 4, 6, 4711


def param(key: int, value: bytes = b"", length: int | None = None) -> bytes:
    """A SvcParam (RFC 9460 2.2). The length may lie."""
    return struct.pack("!2H", key, len(value) if length is None else length) + value


def hint(*addresses: str) -> bytes:
    """An ipv4hint or ipv6hint."""
    packed = b"".join(ipaddress.ip_address(text).packed for text in addresses)
    return param(IPV6HINT if ":" in addresses[0] else IPV4HINT, packed)


def service(
    *params: bytes,
    target: str | bytes = "",
    priority: int = 1,
    owner: bytes = QUESTION,
    ttl: int = 300,
    rtype: int = HTTPS,
    length: int | None = None,
) -> bytes:
    """An HTTPS or SVCB record; the empty target is the owner itself, and priority 0 makes it an alias."""
    name = wire(target) if isinstance(target, str) else target
    data = struct.pack("!H", priority) + name + b"".join(params)
    return record(rtype, data, owner, ttl, length=length)


OPT_RECORD = record(
    OPT, b"", owner=b"\0", ttl=0, rclass=1232
)  # RFC 6891: the class is the size of the buffer


@dataclass(frozen=True)
class Datagram:
    """A DNS message between a client and a server, and what the programs are to make of it."""

    payload: bytes
    counted: tuple[Reason, ...]
    passes: bool = True
    client: str = CLIENT
    client_port: int = 4000
    server: str = RESOLVER
    server_port: int = 53
    udp_length: int | None = None
    trailer: bytes = b""  # octets behind the UDP datagram

    @property
    def ends(self) -> tuple[str, int, str, int]:
        """Source and destination."""
        raise NotImplementedError

    def packet(self) -> Packet:
        """As scapy sees it on the wire."""
        source, source_port, destination, destination_port = self.ends
        udp = UDP(sport=source_port, dport=destination_port, len=self.udp_length)
        return ip(destination, source) / udp / Raw(self.payload + self.trailer)

    def frame(self) -> bytes:
        """With an Ethernet header, and without checksums, which nobody looks at in a test run. The same is
        made of packet(), which takes a hundred times as long."""
        source, source_port, destination, destination_port = self.ends
        body = self.payload + self.trailer
        length = 8 + len(body) if self.udp_length is None else self.udp_length
        udp = struct.pack("!4H", source_port, destination_port, length, 0) + body
        return frame_of(source, destination, _UDP, udp)


class Query(Datagram):
    """From the client, on egress."""

    @property
    def ends(self) -> tuple[str, int, str, int]:
        return self.client, self.client_port, self.server, self.server_port


class Reply(Datagram):
    """To the client, on ingress."""

    @property
    def ends(self) -> tuple[str, int, str, int]:
        return self.server, self.server_port, self.client, self.client_port


_UDP = 17


def frame_of(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """A payload behind an Ethernet and an IP header."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    if len(addresses) == 8:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
        return bytes(12) + b"\x08\0" + header + addresses + payload
    header = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return bytes(12) + b"\x86\xdd" + header + addresses + payload


def over_tcp(*messages: bytes) -> bytes:
    """Messages as they follow each other in a stream (RFC 1035 4.2.2)."""
    return b"".join(struct.pack("!H", len(item)) + item for item in messages)


@dataclass(frozen=True)
class Stream:
    """A TCP connection between a client and a resolver."""

    client: str = CLIENT
    client_port: int = 4000
    server: str = RESOLVER
    server_port: int = 53

    def up(self, payload: bytes = b"", flags: str = "PA") -> Packet:
        """A segment from the client."""
        header = TCP(sport=self.client_port, dport=self.server_port, flags=flags)
        return ip(self.server, self.client) / header / Raw(payload)

    def down(self, payload: bytes = b"", flags: str = "PA") -> Packet:
        """A segment to the client."""
        header = TCP(sport=self.server_port, dport=self.client_port, flags=flags)
        return ip(self.client, self.server) / header / Raw(payload)

    @property
    def key(self) -> bytes:
        """By which the programs know it."""
        return flow(
            ipaddress.ip_address(self.client),
            self.client_port,
            ipaddress.ip_address(self.server),
            self.server_port,
        )

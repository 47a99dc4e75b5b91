"""DNS messages octet by octet (RFC 1035 4), so that they can be wrong in every way.

Those that are right are also made by dnspython in the tests, as a second opinion on the format.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from scapy.layers.inet import UDP
from scapy.packet import Packet, Raw

from ram_ebpf.dataplane.abi import Reason

from .support import CLIENT, RESOLVER, ip

A, CNAME, TXT, AAAA, OPT, HTTPS, ANY = 1, 5, 16, 28, 41, 65, 255
IN, CH = 1, 3
QR, TC, RD, RA = 0x8000, 0x0200, 0x0100, 0x0080
RESPONSE = QR | RD | RA
NXDOMAIN, SERVFAIL = 3, 2
QUESTION = b"\xc0\x0c"  # a compression pointer to the question's name, which is at octet 12

NAME = "registry.test"


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

    def packet(self) -> Packet:
        """As it is on the wire."""
        raise NotImplementedError


class Query(Datagram):
    """From the client, on egress."""

    def packet(self) -> Packet:
        udp = UDP(sport=self.client_port, dport=self.server_port, len=self.udp_length)
        return ip(self.server, self.client) / udp / Raw(self.payload + self.trailer)


class Reply(Datagram):
    """To the client, on ingress."""

    def packet(self) -> Packet:
        udp = UDP(sport=self.server_port, dport=self.client_port, len=self.udp_length)
        return ip(self.client, self.server) / udp / Raw(self.payload + self.trailer)

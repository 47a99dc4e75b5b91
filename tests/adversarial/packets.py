"""Packets and DNS messages, byte by byte, so that they can be wrong in any way that a test wants."""

from __future__ import annotations

import ipaddress
import socket
import struct
import zlib

SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10

MORE_FRAGMENTS = 0x2000

A = 1
AAAA = 28


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return packed + struct.pack("!II", length, protocol)  # the sum is the same for both families


def tcp(
    source: str,
    destination: str,
    port: int,
    flags: int,
    payload: bytes = b"",
    source_port: int = 40404,
    sequence: int = 1000,
    acknowledgement: int = 1,
) -> bytes:
    """A TCP segment."""
    numbers = (sequence & 0xFFFFFFFF, acknowledgement & 0xFFFFFFFF)
    header = struct.pack("!HHIIBBHHH", source_port, port, *numbers, 5 << 4, flags, 65535, 0, 0)
    length = len(header) + len(payload)
    total = checksum(_pseudo_header(source, destination, 6, length) + header + payload)
    return header[:16] + struct.pack("!H", total) + header[18:] + payload


def udp(source: str, destination: str, port: int, payload: bytes, source_port: int = 40404) -> bytes:
    """A UDP datagram."""
    length = 8 + len(payload)
    header = struct.pack("!HHHH", source_port, port, length, 0)
    total = checksum(_pseudo_header(source, destination, 17, length) + header + payload) or 0xFFFF
    return header[:6] + struct.pack("!H", total) + payload


def ipv4(
    source: str, destination: str, protocol: int, payload: bytes, *, fragment: int = 0, options: bytes = b""
) -> bytes:
    """An IPv4 packet. `fragment` is the field of the flags and the offset in units of 8 bytes."""
    options += b"\0" * (-len(options) % 4)
    header_length = 20 + len(options)
    header = struct.pack(
        "!BBHHHBBH4s4s",
        4 << 4 | header_length // 4,
        0,
        header_length + len(payload),
        0x1234,
        fragment,
        64,
        protocol,
        0,
        socket.inet_aton(source),
        socket.inet_aton(destination),
    )
    total = checksum(header + options)
    return header[:10] + struct.pack("!H", total) + header[12:] + options + payload


def ipv6(source: str, destination: str, next_header: int, payload: bytes) -> bytes:
    """An IPv6 packet; extension headers are part of the payload."""
    header = struct.pack("!IHBB", 6 << 28, len(payload), next_header, 64)
    packed = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    return header + packed + payload


def source_route(*hops: str, kind: int = 0x83) -> bytes:
    """The IPv4 option that names hops: loose (0x83) or strict (0x89), RFC 791 3.1."""
    addresses = b"".join(map(socket.inet_aton, hops))
    return bytes([kind, 3 + len(addresses), 4]) + addresses


def wire_name(*labels: bytes) -> bytes:
    """A name as it is on the wire; labels may hold any byte."""
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def labels_of(name: str) -> list[bytes]:
    """The labels of an ordinary name."""
    return [label.encode() for label in name.split(".")]


def query(name: bytes, kind: int = A, identifier: int = 7, questions: int = 1) -> bytes:
    """A DNS query for a name on the wire."""
    return struct.pack("!HHHHHH", identifier, 0x0100, questions, 0, 0, 0) + name + struct.pack("!HH", kind, 1)


def reply(name: bytes, address: str, identifier: int = 7, ttl: int = 60) -> bytes:
    """A DNS response that gives one address for a name on the wire."""
    packed = ipaddress.ip_address(address).packed
    kind = struct.pack("!HH", A if len(packed) == 4 else AAAA, 1)
    record = b"\xc0\x0c" + kind + struct.pack("!IH", ttl, len(packed)) + packed
    return struct.pack("!HHHHHH", identifier, 0x8180, 1, 1, 0, 0) + name + kind + record


def record(owner: bytes, kind: int, data: bytes, ttl: int = 60) -> bytes:
    """A resource record of class IN."""
    return owner + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def response(question: bytes, *answers: bytes) -> bytes:
    """What follows the id in a response with these answers, of which empty ones are not counted."""
    return struct.pack("!HHHHH", 0x8180, 1, sum(map(bool, answers)), 0, 0) + question + b"".join(answers)


def framed(*messages: bytes) -> bytes:
    """DNS messages as they are in a TCP stream (RFC 1035 4.2.2)."""
    return b"".join(struct.pack("!H", len(message)) + message for message in messages)


def address_for(name: bytes, kind: int = A) -> str:
    """The attacker's address for a name on the wire: another one for each, the same on both sides."""
    number = zlib.crc32(name.lower()) & 0xFFFF
    if kind == AAAA:
        return str(ipaddress.ip_address(f"2001:db8:bad::{number + 1:x}"))
    return str(ipaddress.ip_address("198.18.0.1") + number)

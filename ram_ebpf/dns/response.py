"""Reading DNS messages that others wrote, whoever that was.

dnspython reads names and records, but not whole messages: it keeps something for each type and class that it
has ever met, so that whoever may send replies could fill this process's memory, and it takes a type for
unknown in class IN too when it meets that in another class first.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any, NamedTuple

import dns.exception
import dns.flags
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from dns.rdtypes.svcbbase import ParamKey

from ram_ebpf.dataplane.abi import IPAddress

ADDRESS_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA)
SERVICE_TYPES = (dns.rdatatype.HTTPS, dns.rdatatype.SVCB)  # RFC 9460

_HEADER = struct.Struct("!6H")  # RFC 1035 4.1.1
_QUESTION = struct.Struct("!2H")  # 4.1.2, behind the name
_RECORD = struct.Struct("!HHIH")  # 4.1.3, behind the name
_LONGEST_TTL = 0x7FFFFFFF  # RFC 2181 8: a greater one is none

_WRONG = (dns.exception.DNSException, ValueError, IndexError, struct.error)


class Answer(NamedTuple):
    """Addresses with the seconds that each may be kept. `name` is in lower case without a trailing dot."""

    name: str
    addresses: tuple[tuple[IPAddress, int], ...]
    truncated: bool = False


def addresses_in(rdtype: int, item: Any) -> list[IPAddress]:
    """Those in one record of class IN."""
    if rdtype in ADDRESS_TYPES:
        return [ipaddress.ip_address(item.address)]
    if rdtype in SERVICE_TYPES:
        hints = (item.params.get(key) for key in (ParamKey.IPV4HINT, ParamKey.IPV6HINT))
        return [ipaddress.ip_address(text) for hint in hints if hint is not None for text in hint.addresses]
    return []


def read_message(wire: bytes) -> Answer | None:
    """What a DNS response says about addresses, whosesoever: for telling people, not for opening anything.

    None for bytes that are no response with one question. What is behind the answers is not looked at.
    """
    try:
        return _read(wire)
    except _WRONG:
        return None


def _read(wire: bytes) -> Answer | None:
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(wire)
    if not flags & dns.flags.QR or questions != 1:
        return None
    name, length = dns.name.from_wire(wire, _HEADER.size)
    at = _HEADER.size + length
    _QUESTION.unpack_from(wire, at)
    at += _QUESTION.size
    addresses: dict[IPAddress, int] = {}
    for _ in range(answers):
        _, length = dns.name.from_wire(wire, at)
        rdtype, rdclass, ttl, size = _RECORD.unpack_from(wire, at + length)
        at += length + _RECORD.size
        if at + size > len(wire):
            return None
        if rdclass == dns.rdataclass.IN and rdtype in (*ADDRESS_TYPES, *SERVICE_TYPES):
            item = dns.rdata.from_wire(dns.rdataclass.IN, rdtype, wire, at, size)
            seconds = ttl if ttl <= _LONGEST_TTL else 0
            for address in addresses_in(rdtype, item):
                addresses[address] = min(seconds, addresses.get(address, seconds))
        at += size
    text = name.to_text(omit_final_dot=True).lower()
    return Answer(text, tuple(addresses.items()), bool(flags & dns.flags.TC))


def question_type(wire: bytes) -> int | None:
    """The question's type, of a message that has it."""
    try:
        _, length = dns.name.from_wire(wire, _HEADER.size)
    except _WRONG:
        return None
    raw = wire[_HEADER.size + length : _HEADER.size + length + 2]
    return int.from_bytes(raw, "big") if len(raw) == 2 else None


def question_name(wire: bytes) -> str | None:
    """The question's name, even of a message that ends early."""
    try:
        name, _ = dns.name.from_wire(wire, _HEADER.size)
    except _WRONG:
        return None
    return name.to_text(omit_final_dot=True).lower()

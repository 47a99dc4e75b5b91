"""Asking a resolver for the addresses of a name, and reading what others were told."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dataplane.plane import TrustedResolver

_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA)


@dataclass(frozen=True)
class Answer:
    """Addresses with the seconds that each may be kept. `name` is in lower case without a trailing dot."""

    name: str
    addresses: tuple[tuple[IPAddress, int], ...]
    truncated: bool = False


class LookupFailedError(Exception):
    """No resolver gave a usable answer; the text says what each did."""


def read_message(wire: bytes) -> Answer | None:
    """What a DNS response says about addresses; None for bytes that are no response with one question."""
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True, raise_on_truncation=False)
    except (dns.exception.DNSException, ValueError, IndexError):
        return None
    if not message.flags & dns.flags.QR or len(message.question) != 1:
        return None
    return _answer(message)


def _answer(message: dns.message.Message) -> Answer:
    addresses = [
        (ipaddress.ip_address(item.address), int(rrset.ttl))
        for rrset in message.answer
        if rrset.rdclass == dns.rdataclass.IN and rrset.rdtype in _TYPES
        for item in rrset
    ]
    name = message.question[0].name.to_text(omit_final_dot=True).lower()
    return Answer(name, tuple(addresses), bool(message.flags & dns.flags.TC))


def question_name(wire: bytes) -> str | None:
    """The question's name, even of a message that ends early."""
    try:
        name, _ = dns.name.from_wire(wire, 12)
    except (dns.exception.DNSException, ValueError, IndexError):
        return None
    return name.to_text(omit_final_dot=True).lower()


async def look_up(name: str, resolvers: Sequence[TrustedResolver], timeout: float = 2.0) -> Answer:
    """Asks for A and AAAA, each resolver in turn, over TCP where UDP is truncated.

    `timeout` is in seconds for one question to one resolver. Raises LookupFailedError when no resolver
    answered both questions; a name that has no address gives an empty answer.
    """
    problems = []
    for resolver in resolvers:
        addresses: list[tuple[IPAddress, int]] = []
        try:
            for kind in _TYPES:
                query = dns.message.make_query(name, kind, use_edns=0, payload=1232)
                response, _ = await dns.asyncquery.udp_with_fallback(
                    query, str(resolver.address), timeout=timeout, port=resolver.port
                )
                if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    raise LookupFailedError(dns.rcode.to_text(response.rcode()))
                addresses += _answer(response).addresses
        except (dns.exception.DNSException, OSError, EOFError, LookupFailedError) as error:
            problems.append(f"{resolver.address}: {str(error) or type(error).__name__}")
            continue
        return Answer(name, tuple(addresses))
    raise LookupFailedError("; ".join(problems) or "there is no resolver to ask")

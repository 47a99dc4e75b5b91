"""Asking a resolver for the addresses of a name, and reading what others were told."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from dns.rdtypes.svcbbase import ParamKey

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dataplane.trusted import TrustedResolver

ADDRESS_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA)
_SERVICES = (dns.rdatatype.HTTPS, dns.rdatatype.SVCB)  # RFC 9460

# dnspython loads the class of a type when it first meets one. If that is in a record of another class than
# IN, it takes the type for unknown in class IN too, from then on: one hostile reply would spoil all others.
_load_all_types: Callable[[], None] = dns.rdata.load_all_types
_load_all_types()


def types_for(rdtype: int | None) -> Sequence[int]:
    """What to ask instead of somebody who asked for `rdtype`: the same, where it may lead to addresses."""
    return (rdtype,) if rdtype in (*ADDRESS_TYPES, *_SERVICES) else ADDRESS_TYPES


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
    """All addresses, whosesoever: for telling people, not for opening anything."""
    addresses = [
        (ipaddress.ip_address(text), int(rrset.ttl))
        for rrset in message.answer
        if rrset.rdclass == dns.rdataclass.IN
        for item in rrset
        for text in _texts(rrset.rdtype, item)
    ]
    name = message.question[0].name.to_text(omit_final_dot=True).lower()
    return Answer(name, tuple(addresses), bool(message.flags & dns.flags.TC))


def _texts(rdtype: int, item: Any) -> list[str]:
    """The addresses in one record."""
    if rdtype in ADDRESS_TYPES:
        return [item.address]
    if rdtype in _SERVICES:
        hints = (item.params.get(key) for key in (ParamKey.IPV4HINT, ParamKey.IPV6HINT))
        return [text for hint in hints if hint is not None for text in hint.addresses]
    return []


def _of_the_name(message: dns.message.Message) -> list[tuple[IPAddress, int]]:
    """The addresses at the end of the chain from the question, with the time that all of it may be kept."""
    assert isinstance(message, dns.message.QueryMessage)
    chain = message.resolve_chaining()
    if chain.answer is None:
        return []
    seconds = int(chain.minimum_ttl)
    return [
        (ipaddress.ip_address(text), seconds)
        for item in chain.answer
        for text in _texts(chain.answer.rdtype, item)
    ]


def question_type(wire: bytes) -> int | None:
    """The question's type, of a message that has it."""
    try:
        _, length = dns.name.from_wire(wire, 12)
    except (dns.exception.DNSException, ValueError, IndexError):
        return None
    raw = wire[12 + length : 14 + length]
    return int.from_bytes(raw, "big") if len(raw) == 2 else None


def question_name(wire: bytes) -> str | None:
    """The question's name, even of a message that ends early."""
    try:
        name, _ = dns.name.from_wire(wire, 12)
    except (dns.exception.DNSException, ValueError, IndexError):
        return None
    return name.to_text(omit_final_dot=True).lower()


async def look_up(
    name: str,
    resolvers: Sequence[TrustedResolver],
    timeout: float = 2.0,
    types: Sequence[int] = ADDRESS_TYPES,
) -> Answer:
    """Asks for records of these types, each resolver in turn, over TCP where UDP is truncated.

    `timeout` is in seconds for one question to one resolver. Raises LookupFailedError when no resolver
    answered all questions; a name that has no address gives an empty answer.
    """
    problems = []
    for resolver in resolvers:
        addresses: list[tuple[IPAddress, int]] = []
        try:
            for kind in types:
                query = dns.message.make_query(name, dns.rdatatype.RdataType(kind), use_edns=0, payload=1232)
                response, _ = await dns.asyncquery.udp_with_fallback(
                    query,
                    str(resolver.address),
                    timeout=timeout,
                    port=resolver.port,
                    # Anybody may send something in between: the wait for the true reply goes on.
                    ignore_unexpected=True,
                    ignore_errors=True,
                )
                if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    raise LookupFailedError(dns.rcode.to_text(response.rcode()))
                if response.rcode() == dns.rcode.NOERROR:
                    addresses += _of_the_name(response)
        except (dns.exception.DNSException, OSError, EOFError, ValueError, LookupFailedError) as error:
            problems.append(f"{resolver.address}: {str(error) or type(error).__name__}")
            continue
        return Answer(name, tuple(addresses))
    raise LookupFailedError("; ".join(problems) or "there is no resolver to ask")

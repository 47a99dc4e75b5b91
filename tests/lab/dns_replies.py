"""What a script for the adversarial DNS server is made of: replies, and messages to put into them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import dns.message
import dns.name
import dns.rdatatype
import dns.rrset

Address = tuple[str, int]


@dataclass(frozen=True)
class Reply:
    """A datagram to send, by default from where the query went to and back to its sender."""

    wire: bytes
    source: str | None = None
    source_port: int | None = None
    to: Address | None = None
    delay: float = 0.0


Answer = Callable[[dns.message.Message, Address], Iterable[Reply]]


def name_of(*labels: bytes) -> dns.name.Name:
    """Make a name of raw labels, which may hold any octet, also NUL and a dot."""
    return dns.name.Name((*labels, b""))


def respond(
    query: dns.message.Message, *addresses: str, ttl: int = 60, name: dns.name.Name | str | None = None
) -> dns.message.QueryMessage:
    """Make a response with those addresses that are of the type asked for.

    With a `name`, question and answer are about that instead of the name in the query. Further lies are
    told by changing the message before `to_wire`: its `id`, `flags`, `question` and `answer`.
    """
    response = dns.message.make_response(query)
    assert isinstance(response, dns.message.QueryMessage)
    question = response.question[0]
    owner = question.name
    if name is not None:
        owner = dns.name.from_text(name) if isinstance(name, str) else name
        response.question = [dns.rrset.RRset(owner, question.rdclass, question.rdtype)]
    version = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}.get(question.rdtype)
    fitting = [text for text in addresses if ipaddress.ip_address(text).version == version]
    if fitting:
        response.answer.append(
            dns.rrset.from_text_list(owner, ttl, question.rdclass, question.rdtype, fitting)
        )
    return response

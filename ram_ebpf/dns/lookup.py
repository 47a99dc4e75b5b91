"""Asking a resolver for the addresses of a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.response import ADDRESS_TYPES, SERVICE_TYPES, Answer, addresses_in

# dnspython loads the class of a type when it first meets one. If that is in a record of another class than
# IN, it takes the type for unknown in class IN too, from then on: one hostile reply would spoil all others.
_load_class: Callable[[int, int], object] = dns.rdata.get_rdata_class
for _kind in (*ADDRESS_TYPES, *SERVICE_TYPES, dns.rdatatype.CNAME, dns.rdatatype.SOA):
    _load_class(dns.rdataclass.IN, _kind)


def types_for(rdtype: int | None) -> Sequence[int]:
    """What to ask instead of somebody who asked for `rdtype`: the same, where it may lead to addresses."""
    return (rdtype,) if rdtype in (*ADDRESS_TYPES, *SERVICE_TYPES) else ADDRESS_TYPES


class LookupFailedError(Exception):
    """No resolver gave a usable answer; the text says what each did."""


def _of_the_name(message: dns.message.Message) -> list[tuple[IPAddress, int]]:
    """The addresses at the end of the chain from the question, with the time that all of it may be kept."""
    assert isinstance(message, dns.message.QueryMessage)
    chain = message.resolve_chaining()
    if chain.answer is None:
        return []
    seconds = int(chain.minimum_ttl)
    return [
        (address, seconds) for item in chain.answer for address in addresses_in(chain.answer.rdtype, item)
    ]


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

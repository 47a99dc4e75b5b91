"""Whether a resolver answers: over UDP, and over TCP, which a long answer takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from ram_ebpf.dataplane.trusted import TrustedResolver

_USEFUL = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


@dataclass(frozen=True)
class Answered:
    """How one question went. `seconds`: until the answer; `problem`: why there is none of use, or empty."""

    seconds: float
    problem: str = ""


@dataclass(frozen=True)
class Reached:
    """How a resolver answers the same question over both."""

    resolver: TrustedResolver
    udp: Answered
    tcp: Answered


async def reach(resolvers: Sequence[TrustedResolver], names: Sequence[str], timeout: float) -> list[Reached]:
    """Asks all at the same time for the addresses (type A) of a name. `timeout`: seconds for each answer.

    `names`: of which the next one is asked for where the domain of one may be broken.
    """
    return list(await asyncio.gather(*(_reach(resolver, names, timeout) for resolver in resolvers)))


async def _reach(resolver: TrustedResolver, names: Sequence[str], timeout: float) -> Reached:
    where, port = str(resolver.address), resolver.port

    async def over_udp(query: dns.message.Message) -> dns.message.Message:
        return await dns.asyncquery.udp(
            query, where, timeout, port, ignore_unexpected=True, ignore_errors=True
        )

    async def over_tcp(query: dns.message.Message) -> dns.message.Message:
        return await dns.asyncquery.tcp(query, where, timeout, port)

    udp, tcp = await asyncio.gather(_ask(over_udp, names), _ask(over_tcp, names))
    return Reached(resolver, udp, tcp)


async def _ask(
    ask: Callable[[dns.message.Message], Awaitable[dns.message.Message]], names: Sequence[str]
) -> Answered:
    answered = Answered(0.0, "there is nothing to ask for")
    for name in names:
        started = time.monotonic()
        problem = await _problem(ask(dns.message.make_query(name, dns.rdatatype.A, use_edns=0, payload=1232)))
        answered = Answered(time.monotonic() - started, problem)
        if problem != dns.rcode.to_text(dns.rcode.SERVFAIL):
            break
    return answered


async def _problem(answer: Awaitable[dns.message.Message]) -> str:
    try:
        code = (await answer).rcode()
    except dns.exception.Timeout:
        return "nothing came back"
    except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
        return str(error) or type(error).__name__
    return "" if code in _USEFUL else dns.rcode.to_text(code)

"""Asking resolvers, each of them a server in this process."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Sequence

import dns.asyncquery
import dns.message
import dns.rcode
import dns.rrset
import pytest

from ram_ebpf.dataplane.plane import TrustedResolver
from ram_ebpf.dns.lookup import Answer, LookupFailedError, look_up

from .server import LOCALHOST, Server, fails, free_port, knows, reply, truncated

ip = ipaddress.ip_address
GHCR = knows(("ghcr.io.", 60, "A", "192.0.2.1"), ("ghcr.io.", 30, "AAAA", "2001:db8::1"))
ANSWER = Answer("ghcr.io", ((ip("192.0.2.1"), 60), (ip("2001:db8::1"), 30)))


def ask(name: str, *resolvers: TrustedResolver, timeout: float = 2.0) -> Answer:
    return asyncio.run(look_up(name, resolvers, timeout))


def failure(name: str, resolvers: Sequence[TrustedResolver], timeout: float = 2.0) -> str:
    with pytest.raises(LookupFailedError) as caught:
        ask(name, *resolvers, timeout=timeout)
    return str(caught.value)


def test_both_families() -> None:
    with Server(GHCR) as server:
        assert ask("ghcr.io", server.resolver) == ANSWER
    assert server.asked == [("ghcr.io", "A", False), ("ghcr.io", "AAAA", False)]


def test_one_family() -> None:
    with Server(knows(("v4.example.", 60, "A", "192.0.2.4"))) as server:
        assert ask("v4.example", server.resolver) == Answer("v4.example", ((ip("192.0.2.4"), 60),))


def test_a_chain_of_aliases() -> None:
    def chain(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        if query.question[0].rdtype != dns.rdatatype.A:
            return reply(query)
        return reply(
            query,
            dns.rrset.from_text("registry.example.", 3600, "IN", "CNAME", "r.cdn.example."),
            dns.rrset.from_text("r.cdn.example.", 20, "IN", "A", "192.0.2.7", "192.0.2.8"),
        )

    with Server(chain) as server:
        answer = ask("registry.example", server.resolver)
    assert answer.name == "registry.example"  # the records of a set come in any order
    assert sorted(answer.addresses) == [(ip("192.0.2.7"), 20), (ip("192.0.2.8"), 20)]


def test_a_name_that_is_not() -> None:
    with Server(GHCR) as server, Server(GHCR) as second:
        assert ask("missing.example", server.resolver, second.resolver) == Answer("missing.example", ())
    assert server.types() == ["A", "AAAA"]
    assert second.asked == []


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
def test_the_next_resolver_after_an_error(rcode: dns.rcode.Rcode) -> None:
    with Server(fails(rcode)) as first, Server(GHCR) as second:
        assert ask("ghcr.io", first.resolver, second.resolver) == ANSWER
    assert first.types() == ["A"]  # its answer to the second question would not be used
    assert second.types() == ["A", "AAAA"]


def test_an_error_for_the_second_question_drops_the_first_answer() -> None:
    def half(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        if query.question[0].rdtype == dns.rdatatype.AAAA:
            return reply(query, rcode=dns.rcode.SERVFAIL)
        return reply(query, dns.rrset.from_text("ghcr.io.", 60, "IN", "A", "192.0.2.66"))

    with Server(half) as first, Server(GHCR) as second:
        assert ask("ghcr.io", first.resolver, second.resolver) == ANSWER


def test_every_resolver_fails() -> None:
    with Server(fails(dns.rcode.SERVFAIL)) as first, Server(fails(dns.rcode.REFUSED)) as second:
        text = failure("ghcr.io", [first.resolver, second.resolver])
    assert text == "127.0.0.1: SERVFAIL; 127.0.0.1: REFUSED"


def test_no_resolver() -> None:
    assert failure("ghcr.io", []) == "there is no resolver to ask"


def test_truncated_replies_are_asked_for_over_tcp() -> None:
    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message | bytes | None:
        return GHCR(query, over_tcp) if over_tcp else truncated(query)

    with Server(handle) as server:
        assert ask("ghcr.io", server.resolver) == ANSWER
    assert server.asked == [
        ("ghcr.io", kind, over_tcp) for kind in ("A", "AAAA") for over_tcp in (False, True)
    ]


def test_many_addresses_over_tcp() -> None:
    addresses = [f"10.0.{n // 256}.{n % 256}" for n in range(1000)]

    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        if query.question[0].rdtype != dns.rdatatype.A:
            return reply(query)
        if not over_tcp:
            return truncated(query)
        return reply(query, dns.rrset.from_text("big.example.", 60, "IN", "A", *addresses))

    with Server(handle) as server:
        answer = ask("big.example", server.resolver)
    assert {str(address) for address, _ in answer.addresses} == set(addresses)


def test_the_next_resolver_when_tcp_closes_early() -> None:
    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message | None:
        return None if over_tcp else truncated(query)

    with Server(handle) as first, Server(GHCR) as second:
        assert ask("ghcr.io", first.resolver, second.resolver) == ANSWER


def test_tcp_closes_early_everywhere() -> None:
    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message | None:
        return None if over_tcp else truncated(query)

    with Server(handle) as server:
        assert failure("ghcr.io", [server.resolver]).startswith("127.0.0.1: ")


def test_timeout() -> None:
    with Server(lambda query, over_tcp: None) as silent, Server(GHCR) as second:
        before = time.monotonic()
        assert ask("ghcr.io", silent.resolver, second.resolver, timeout=0.2) == ANSWER
        assert 0.15 < time.monotonic() - before < 1.5
        text = failure("ghcr.io", [silent.resolver], timeout=0.1)
    assert text.startswith("127.0.0.1: ")
    assert "timed out" in text
    assert silent.types() == ["A", "A"]


def test_nobody_listens() -> None:
    """The kernel answers with ICMP, which an unconnected socket need not hear of."""
    nobody = TrustedResolver(LOCALHOST, free_port(), True)
    with Server(GHCR) as second:
        before = time.monotonic()
        assert ask("ghcr.io", nobody, second.resolver, timeout=0.2) == ANSWER
        assert time.monotonic() - before < 1.5
    assert failure("ghcr.io", [nobody], timeout=0.1).startswith("127.0.0.1: ")


def test_an_address_that_cannot_be_reached() -> None:
    link_local = TrustedResolver(ip("fe80::1"))  # without its zone
    with Server(GHCR) as second:
        assert ask("ghcr.io", link_local, second.resolver, timeout=0.2) == ANSWER


@pytest.mark.parametrize("garbage", [b"", b"x", b"\0" * 12, b"\xff" * 100])
def test_garbage(garbage: bytes) -> None:
    with Server(lambda query, over_tcp: garbage) as first, Server(GHCR) as second:
        assert ask("ghcr.io", first.resolver, second.resolver, timeout=0.3) == ANSWER


def test_another_identifier() -> None:
    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        response = reply(query, dns.rrset.from_text("ghcr.io.", 60, "IN", "A", "192.0.2.66"))
        response.id ^= 1
        return response

    with Server(handle) as first, Server(GHCR) as second:
        assert ask("ghcr.io", first.resolver, second.resolver, timeout=0.3) == ANSWER


def test_an_answer_to_another_question() -> None:
    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        other = dns.message.make_query("evil.example.", "A", id=query.id)
        return reply(other, dns.rrset.from_text("evil.example.", 60, "IN", "A", "192.0.2.66"))

    with Server(handle) as first, Server(GHCR) as second:
        assert ask("ghcr.io", first.resolver, second.resolver, timeout=0.3) == ANSWER


@pytest.mark.parametrize("name", ["a..b", "a" * 64 + ".example", ".".join(["a" * 60] * 5)])
def test_a_name_that_dns_cannot_hold(name: str) -> None:
    with Server(GHCR) as server:
        assert failure(name, [server.resolver]).startswith("127.0.0.1: ")
    assert server.asked == []


@pytest.mark.parametrize("error", [OSError(), ConnectionResetError()])
def test_errors_without_a_text_say_what_they_are(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(dns.asyncquery, "udp_with_fallback", fail)
    text = failure("ghcr.io", [TrustedResolver(LOCALHOST)])
    assert text.startswith("127.0.0.1: ")
    assert text != "127.0.0.1: "

"""Asking resolvers, each of them a server in this process."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Sequence

import dns.asyncquery
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.lookup import LookupFailedError, look_up
from ram_ebpf.dns.response import ADDRESS_TYPES, Answer

from .server import LOCALHOST, Handler, Server, fails, free_port, knows, reply, truncated

ip = ipaddress.ip_address
GHCR = knows(("ghcr.io.", 60, "A", "192.0.2.1"), ("ghcr.io.", 30, "AAAA", "2001:db8::1"))
ANSWER = Answer("ghcr.io", ((ip("192.0.2.1"), 60), (ip("2001:db8::1"), 30)))


def ask(
    name: str, *resolvers: TrustedResolver, timeout: float = 2.0, types: Sequence[int] = ADDRESS_TYPES
) -> Answer:
    return asyncio.run(look_up(name, resolvers, timeout, types))


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


def answers(*records: tuple[str, int, str, str], rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> Handler:
    """Has these records in the answer to every question, whatever it is about."""

    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        return reply(
            query,
            *(dns.rrset.from_text(name, ttl, "IN", kind, value) for name, ttl, kind, value in records),
            rcode=rcode,
        )

    return handle


A_ONLY = (dns.rdatatype.A,)
NAME = "registry.example"
TO_CDN = ("registry.example.", 3600, "CNAME", "r.cdn.example.")


@pytest.mark.parametrize(
    ("records", "addresses"),
    [
        pytest.param(
            [TO_CDN, ("r.cdn.example.", 20, "A", "192.0.2.7"), ("r.cdn.example.", 20, "A", "192.0.2.8")],
            [("192.0.2.7", 20), ("192.0.2.8", 20)],
            id="one alias",
        ),
        pytest.param(
            [("registry.example.", 15, "CNAME", "r.cdn.example."), ("r.cdn.example.", 20, "A", "192.0.2.7")],
            [("192.0.2.7", 15)],
            id="the alias ends first",
        ),
        pytest.param(
            [
                TO_CDN,
                ("r.cdn.example.", 7, "CNAME", "e.cdn.example."),
                ("e.cdn.example.", 300, "A", "192.0.2.7"),
            ],
            [("192.0.2.7", 7)],
            id="the middle of a chain ends first",
        ),
        pytest.param(
            [
                ("e.cdn.example.", 9, "A", "192.0.2.7"),
                ("r.cdn.example.", 8, "CNAME", "e.cdn.example."),
                TO_CDN,
            ],
            [("192.0.2.7", 8)],
            id="in the wrong order",
        ),
        pytest.param(
            [("REGISTRY.example.", 60, "CNAME", "R.cdn.example."), ("r.CDN.example.", 20, "A", "192.0.2.7")],
            [("192.0.2.7", 20)],
            id="in other letters",
        ),
        pytest.param([TO_CDN], [], id="an alias without an address"),
        pytest.param([("registry.example.", 0, "A", "192.0.2.7")], [("192.0.2.7", 0)], id="not to be kept"),
        pytest.param(
            [("registry.example.", 60, "A", "192.0.2.7"), ("registry.example.", 5, "A", "192.0.2.8")],
            [("192.0.2.7", 5), ("192.0.2.8", 5)],
            id="times that differ in one set",
        ),
        pytest.param([("evil.example.", 60, "A", "192.0.2.66")], [], id="a stranger's address"),
        pytest.param(
            [("registry.example.", 60, "A", "192.0.2.7"), ("evil.example.", 60, "A", "192.0.2.66")],
            [("192.0.2.7", 60)],
            id="a stranger's beside ours",
        ),
        pytest.param(
            [TO_CDN, ("evil.example.", 60, "A", "192.0.2.66")], [], id="a stranger's behind our alias"
        ),
        pytest.param(
            [("evil.example.", 60, "CNAME", "registry.example."), ("evil.example.", 60, "A", "192.0.2.66")],
            [],
            id="a stranger's that leads to us",
        ),
        pytest.param(
            [("sub.registry.example.", 60, "A", "192.0.2.66")], [], id="a name below ours is a stranger"
        ),
        pytest.param(
            [("registry.example.", 60, "AAAA", "2001:db8::66")], [], id="an address of the other family"
        ),
        pytest.param(
            [("registry.example.", 60, "HTTPS", "1 . ipv4hint=192.0.2.66")], [], id="hints that nobody wants"
        ),
    ],
)
def test_what_belongs_to_the_name(
    records: list[tuple[str, int, str, str]], addresses: list[tuple[str, int]]
) -> None:
    """The addresses at the end of its chain of aliases, for as long as all of that may be kept."""
    with Server(answers(*records)) as server:
        answer = ask(NAME, server.resolver, types=A_ONLY)
    assert answer.name == NAME
    # The records of a set come in any order.
    assert sorted((str(address), seconds) for address, seconds in answer.addresses) == addresses


def test_aliases_in_a_circle() -> None:
    circle = answers(TO_CDN, ("r.cdn.example.", 60, "CNAME", "registry.example."))
    with Server(circle) as first, Server(GHCR) as second:
        assert failure(NAME, [first.resolver]).startswith("127.0.0.1: ")
        assert ask(NAME, first.resolver, second.resolver) == Answer(NAME, ())


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NXDOMAIN])
def test_addresses_in_an_error_are_not_taken(rcode: dns.rcode.Rcode) -> None:
    with Server(answers(("ghcr.io.", 60, "A", "192.0.2.66"), rcode=rcode)) as first, Server(GHCR) as second:
        answer = ask("ghcr.io", first.resolver, second.resolver)
    assert ip("192.0.2.66") not in dict(answer.addresses)


@pytest.mark.parametrize("section", ["authority", "additional"])
def test_addresses_in_other_sections_are_not_taken(section: str) -> None:
    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        response = reply(query)
        getattr(response, section).append(dns.rrset.from_text("ghcr.io.", 60, "IN", "A", "192.0.2.66"))
        return response

    with Server(handle) as server:
        assert ask("ghcr.io", server.resolver) == Answer("ghcr.io", ())


@pytest.mark.parametrize(
    ("types", "asked"),
    [
        ([1], ["A"]),
        ([28], ["AAAA"]),
        ([65], ["HTTPS"]),
        ([64], ["SVCB"]),
        ([1, 28], ["A", "AAAA"]),
        ([65, 1], ["HTTPS", "A"]),
        ([], []),
    ],
)
def test_types(types: list[int], asked: list[str]) -> None:
    with Server(GHCR) as server:
        ask("ghcr.io", server.resolver, types=types)
    assert server.types() == asked


@pytest.mark.parametrize("kind", [dns.rdatatype.HTTPS, dns.rdatatype.SVCB])
@pytest.mark.parametrize(
    ("records", "addresses"),
    [
        pytest.param(
            [("ghcr.io.", 60, "1 . alpn=h2 ipv4hint=192.0.2.3,192.0.2.4 ipv6hint=2001:db8::3")],
            [("192.0.2.3", 60), ("192.0.2.4", 60), ("2001:db8::3", 60)],
            id="hints",
        ),
        pytest.param([("ghcr.io.", 60, "1 . alpn=h2")], [], id="none"),
        pytest.param([("ghcr.io.", 60, "0 edge.ghcr.io.")], [], id="an alias"),
        pytest.param([("evil.example.", 60, "1 . ipv4hint=192.0.2.66")], [], id="a stranger's"),
        pytest.param(
            [("ghcr.io.", 60, "1 . ipv4hint=192.0.2.3"), ("ghcr.io.", 60, "2 b.ghcr.io. ipv4hint=192.0.2.4")],
            [("192.0.2.3", 60), ("192.0.2.4", 60)],
            id="of two services",
        ),
    ],
)
def test_hints_for_services(
    kind: dns.rdatatype.RdataType, records: list[tuple[str, int, str]], addresses: list[tuple[str, int]]
) -> None:
    text = dns.rdatatype.to_text(kind)
    with Server(answers(*((name, ttl, text, value) for name, ttl, value in records))) as server:
        answer = ask("ghcr.io", server.resolver, types=[kind])
    assert sorted((str(address), seconds) for address, seconds in answer.addresses) == addresses


def test_hints_behind_an_alias() -> None:
    records = (
        ("ghcr.io.", 10, "CNAME", "e.ghcr.io."),
        ("e.ghcr.io.", 60, "HTTPS", "1 . ipv4hint=192.0.2.3"),
    )
    with Server(answers(*records)) as server:
        answer = ask("ghcr.io", server.resolver, types=[dns.rdatatype.HTTPS])
    assert answer == Answer("ghcr.io", ((ip("192.0.2.3"), 10),))


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

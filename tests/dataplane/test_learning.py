"""Which addresses a DNS exchange opens: packets through the programs, then what they learned and counted.

Names and their records: test_compression.py, test_chains.py; other types: test_hints.py.
"""

from __future__ import annotations

import random
from dataclasses import replace

import dns.flags
import dns.message
import dns.rrset
import pytest
from scapy.layers.inet import TCP

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.settings import Settings

from . import messages as m
from .exchanges import (
    DENIED_NAMES,
    LONGEST,
    MOST_LABELS,
    NOTHING,
    ONE,
    REGISTRIES,
    SIX,
    TWO,
    Expected,
    ask,
    check,
    exchange,
    many,
    opened,
    over_ipv6,
    tell,
)
from .messages import Datagram, Query, Reply, address, labels, message, question, record, wire
from .support import RESOLVER, Bench, frame, ip, trusted

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

UNTRUSTED = "198.51.100.53"
UPDATE = 5 << 11  # the opcode, RFC 2136


def named(name: str | bytes, pattern: str = "") -> tuple[tuple[Datagram, ...], Expected]:
    """An exchange about a name that the pattern allows, or, without one, that nothing does."""
    if pattern:
        return (ask(name), tell(address(ONE), name=name)), opened({ONE: 300}, pattern)
    return (ask(name), tell(address(ONE), name=name, counted=Reason.DNS_NOT_LISTED)), {}


def resolved(
    name: str, qtype: str, *answers: str, edns: bool = False, counted: Reason = Reason.DNS_LEARNED
) -> tuple[Query, Reply]:
    """An exchange as dnspython writes it, with compressed names: a second opinion on the format."""
    query = dns.message.make_query(name, qtype, use_edns=0 if edns else False, id=7)
    response = dns.message.make_response(query, recursion_available=True)
    for answer in answers:
        owner, ttl, rclass, rtype, data = answer.split(" ", 4)
        response.answer.append(dns.rrset.from_text(owner, int(ttl), rclass, rtype, *data.split(", ")))
    response.flags |= dns.flags.RA
    return (
        Query(query.to_wire(), (Reason.ALLOWED_RESOLVER,)),
        Reply(response.to_wire(), (counted,)),
    )


RIGHT = [
    pytest.param((ask(), tell(address(ONE))), opened({ONE: 300}), id="an A record"),
    pytest.param(
        (ask(qtype=m.AAAA), tell(address(SIX), qtype=m.AAAA)), opened({SIX: 300}), id="an AAAA record"
    ),
    pytest.param(
        (ask(), tell(address(ONE), address(TWO, ttl=60), address(SIX, ttl=900))),
        opened({ONE: 300, TWO: 60, SIX: 900}),
        id="several records each with its own time to live",
    ),
    pytest.param(
        (ask(), tell(*map(address, many(40)))), opened(dict.fromkeys(many(40), 300)), id="40 records"
    ),
    pytest.param(
        (ask(), tell(*map(address, many(128)))), opened(dict.fromkeys(many(128), 300)), id="128 records"
    ),
    pytest.param(
        (ask("eight.test"), tell(*map(address, many(128)), name="eight.test")),
        opened(dict.fromkeys(many(128), 300), "eight.test"),
        id="128 records for eight ports",
    ),
    pytest.param(
        (ask(), tell(*map(address, many(180)))), opened(dict.fromkeys(many(180), 300)), id="180 records"
    ),
    pytest.param(
        (ask(), tell(address(ONE), address(ONE, ttl=600), address(ONE, ttl=30))),
        opened({ONE: 600}),
        id="one address thrice stays open for the longest time",
    ),
    pytest.param(
        (ask(), tell(address(ONE, owner=wire(m.NAME)))), opened({ONE: 300}), id="an owner name written out"
    ),
    pytest.param(
        (
            ask("www.one.test"),
            tell(address(ONE, owner=b"\x03www" + m.pointer(m.HEADER + 4)), name="www.one.test"),
        ),
        opened({ONE: 300}, "*.one.test"),
        id="an owner name half written out, half compressed",
    ),
    pytest.param(
        (ask(), tell(m.cname("cdn.example"), address(ONE, owner=wire("cdn.example")))),
        opened({ONE: 300}),
        id="a CNAME record and its target's address",
    ),
    pytest.param(
        (ask(), tell(record(m.TXT, b"\x04text"), record(m.HTTPS, b"\0\1\0"), address(ONE))),
        opened({ONE: 300}),
        id="records of other types are passed over",
    ),
    pytest.param(
        (ask(), tell(record(m.A, b"\1\2\3\4", rclass=m.CH), address(ONE))),
        opened({ONE: 300}),
        id="a record of another class is passed over",
    ),
    pytest.param(
        resolved("registry.test", "A", "registry.test. 300 IN A 192.0.2.1, 192.0.2.2"),
        opened({ONE: 300, TWO: 300}),
        id="A records as dnspython writes them",
    ),
    pytest.param(
        resolved("registry.test", "AAAA", "registry.test. 300 IN AAAA 2001:db8:1::6"),
        opened({SIX: 300}),
        id="an AAAA record as dnspython writes it",
    ),
    pytest.param(
        resolved(
            "x.one.test",
            "A",
            "x.one.test. 300 IN CNAME edge.cdn.example.",
            "edge.cdn.example. 60 IN CNAME fra.edge.cdn.example.",
            "fra.edge.cdn.example. 20 IN A 192.0.2.1",
        ),
        opened({ONE: 20}, "*.one.test"),
        id="a chain of CNAME records as dnspython writes it",
    ),
    pytest.param(
        resolved(
            "registry.test",
            "HTTPS",
            "registry.test. 300 IN HTTPS 1 . alpn=h2,h3 ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8:1::6",
        ),
        opened({ONE: 300, TWO: 300, SIX: 300}),
        id="an HTTPS record with hints as dnspython writes it",
    ),
    pytest.param(
        resolved(
            "registry.test",
            "A",
            "registry.test. 300 IN CNAME edge.cdn.example.",
            counted=Reason.DNS_ALIAS,
        ),
        NOTHING,
        id="a CNAME record alone as dnspython writes it",
    ),
    pytest.param(
        resolved("registry.test", "A", "registry.test. 300 IN A 192.0.2.1", edns=True),
        opened({ONE: 300}),
        id="EDNS in query and reply",
    ),
    pytest.param(
        (ask("ReGiStRy.TeSt"), tell(address(ONE), name="ReGiStRy.TeSt")),
        opened({ONE: 300}),
        id="a query in mixed case",
    ),
    pytest.param(
        (ask("ReGiStRy.TeSt"), tell(address(ONE), name="rEgIsTrY.tEsT")),
        opened({ONE: 300}),
        id="a reply in another case than the query",
    ),
    pytest.param(
        over_ipv6(ask(), tell(address(ONE), address(SIX))), opened({ONE: 300, SIX: 300}), id="DNS over IPv6"
    ),
    pytest.param(
        (ask(client_port=4001), ask("other.test"), tell(address(ONE), client_port=4001)),
        opened({ONE: 300}),
        id="two clients with one transaction id",
    ),
    pytest.param(
        (ask(), tell(address(ONE), udp_length=0)),
        opened({ONE: 300}),
        id="a UDP length of 0 as segmentation offload leaves it",
    ),
    pytest.param(
        (ask(), tell(address(ONE), trailer=bytes(20), udp_length=8 + len(tell(address(ONE)).payload))),
        opened({ONE: 300}),
        id="octets behind the UDP datagram",
    ),
    pytest.param(
        (ask("ports.test"), tell(address(ONE), name="ports.test")),
        opened({ONE: 300}, "ports.test"),
        id="three ports of a rule",
    ),
    pytest.param(
        (ask("eight.test"), tell(address(ONE), address(SIX), name="eight.test")),
        opened({ONE: 300, SIX: 300}, "eight.test"),
        id="eight ports of a rule",
    ),
    pytest.param((ask(), tell(address(ONE, ttl=0))), opened({ONE: 1}), id="a time to live of 0"),
    pytest.param(
        (ask(), tell(address(ONE, ttl=0x80000000 + 300))),
        opened({ONE: 1}),
        id="a time to live with the top bit set counts as 0",
    ),
    pytest.param(
        (ask(), tell(address(ONE, ttl=0x7FFFFFFF))),
        opened({ONE: 86400}),
        id="a time to live above the maximum",
    ),
    pytest.param(
        (ask(), tell(address(ONE, ttl=86400))), opened({ONE: 86400}), id="a time to live at the maximum"
    ),
]

NAMES = [
    pytest.param(*named("docker.io", "docker.io"), id="an exact name"),
    pytest.param(*named("evildocker.io"), id="a name that only ends in the same characters"),
    pytest.param(*named("x.docker.io"), id="a child of an exact name"),
    pytest.param(*named("io"), id="a parent of an exact name"),
    pytest.param(*named("docker.io.evil.example"), id="a name that only begins with an allowed one"),
    pytest.param(*named("docker-io"), id="a hyphen for the dot"),
    pytest.param(*named("x.one.test", "*.one.test"), id="one star and one label"),
    pytest.param(*named("x.y.one.test"), id="one star and two labels"),
    pytest.param(*named("one.test"), id="one star and the parent itself"),
    pytest.param(*named("xone.test"), id="one star and a label that ends in the same characters"),
    pytest.param(*named("img-7.one.test", "img-*.one.test"), id="a glob in a label beats the star for it"),
    pytest.param(*named("img-.one.test", "img-*.one.test"), id="a glob that stands for no character"),
    pytest.param(*named("img-7.x.one.test"), id="a glob does not reach over a label's end"),
    pytest.param(*named("x.y.deep.test", "**.deep.test"), id="two stars and two labels"),
    pytest.param(*named("a.b.c.d.e.f.deep.test", "**.deep.test"), id="two stars and six labels"),
    pytest.param(*named("x.deep.test", "*.deep.test"), id="one star beats two"),
    pytest.param(*named("exact.deep.test", "exact.deep.test"), id="an exact name beats stars"),
    pytest.param(
        *named("x.exact.deep.test", "**.deep.test"), id="a child of an exact name that two stars cover"
    ),
    pytest.param(*named("deep.test"), id="two stars and the parent itself"),
    pytest.param(
        *named("a-foo-b.x.q.glob.test", "a-*-b.x.*.glob.test"), id="globs in a label and for a label"
    ),
    pytest.param(*named("a--b.x.q.glob.test", "a-*-b.x.*.glob.test"), id="a glob between two hyphens"),
    pytest.param(*named("a-b.x.q.glob.test"), id="a glob whose two ends would overlap"),
    pytest.param(*named("a-foo-b.y.q.glob.test"), id="globs and another literal label between them"),
    pytest.param(*named("a-foo-b.x.glob.test"), id="globs and a label too few"),
    pytest.param(*named("q.a-foo-b.x.q.glob.test"), id="globs and a label too many"),
    pytest.param(*named(LONGEST, "**.deep.test"), id="a name of 255 octets"),
    pytest.param(*named(MOST_LABELS, "**.z"), id="a name of 127 labels"),
    pytest.param(*named(b"\0"), id="the root"),
    pytest.param(*named(labels(b"docker.io")), id="a dot inside a label"),
    pytest.param(*named(labels(b"x.y", b"one", b"test")), id="a dot inside the label for a star"),
    pytest.param(*named(labels(b"x", b"deep.test")), id="a dot instead of a label's end"),
    pytest.param(*named(labels(b"docker\0", b"io")), id="a NUL at the end of a label"),
    pytest.param(*named(labels(b"x\0y", b"deep", b"test")), id="a NUL inside a label"),
    pytest.param(*named(labels(b"x\1y", b"deep", b"test")), id="the octet 1 inside a label"),
    pytest.param(*named(labels(b"x y", b"deep", b"test")), id="a space inside a label"),
    pytest.param(*named(labels(b"x\xe9", b"deep", b"test")), id="an octet beyond ASCII inside a label"),
    pytest.param(
        *named(labels(b"x\x06docker\x02io")), id="one label that holds the octets of an allowed name"
    ),
    pytest.param(
        *named(labels(b"x\x04deep", b"test")), id="a label that ends in the octets of an allowed label"
    ),
]

WRONG = [
    pytest.param(
        (ask(), tell(address(ONE), identity=8, counted=Reason.DNS_NO_QUERY)), NOTHING, id="a wrong id"
    ),
    pytest.param(
        (ask(), tell(address(ONE), server=UNTRUSTED, counted=Reason.DNS_UNTRUSTED_SENDER)),
        NOTHING,
        id="a reply from a server that is not trusted",
    ),
    pytest.param(
        (ask(), replace(tell(address(ONE)), server_port=5353, counted=())),
        NOTHING,
        id="a reply from another port of the resolver",
    ),
    pytest.param(
        (ask(), tell(address(ONE), client_port=4001, counted=Reason.DNS_NO_QUERY)),
        NOTHING,
        id="a reply to another port",
    ),
    pytest.param(
        (ask(), tell(address(ONE), client="10.0.0.3", counted=Reason.DNS_NO_QUERY)),
        NOTHING,
        id="a reply to another address",
    ),
    pytest.param(
        (ask(), tell(address(ONE), name="other.test", counted=Reason.DNS_WRONG_QUESTION)),
        NOTHING,
        id="a question about another allowed name",
    ),
    pytest.param(
        (
            ask(),
            tell(address(TWO), name="other.test", counted=Reason.DNS_WRONG_QUESTION),
            tell(address(ONE)),
        ),
        opened({ONE: 300}),
        id="a wrong question does not spoil the right reply after it",
    ),
    pytest.param(
        (ask(), tell(address(ONE), qtype=m.AAAA, counted=Reason.DNS_WRONG_QUESTION)),
        NOTHING,
        id="a question of another type",
    ),
    pytest.param(
        (
            ask(),
            Reply(
                message(question(qclass=m.CH), [address(ONE)], flags=m.RESPONSE), (Reason.DNS_WRONG_QUESTION,)
            ),
        ),
        NOTHING,
        id="a question of another class",
    ),
    pytest.param(
        (ask(), Reply(message(b"", [address(ONE)], flags=m.RESPONSE), (Reason.DNS_WRONG_QUESTION,))),
        NOTHING,
        id="a reply that counts a question and has none",
    ),
    pytest.param(
        (ask(), tell(address(ONE), questions=0, counted=Reason.DNS_WRONG_QUESTION)),
        NOTHING,
        id="a reply with no question",
    ),
    pytest.param(
        (ask(), tell(question(), address(ONE), questions=2, counted=Reason.DNS_WRONG_QUESTION)),
        NOTHING,
        id="a reply with two questions",
    ),
    pytest.param(
        (
            Query(message(question(), questions=0), (Reason.ALLOWED_RESOLVER, Reason.DNS_NOT_A_QUERY)),
            tell(address(ONE), counted=Reason.DNS_NO_QUERY),
        ),
        NOTHING,
        id="a query with no question",
    ),
    pytest.param(
        (
            Query(
                message(question() + question("other.test"), questions=2),
                (Reason.ALLOWED_RESOLVER, Reason.DNS_NOT_A_QUERY),
            ),
            tell(address(ONE), counted=Reason.DNS_NO_QUERY),
        ),
        NOTHING,
        id="a query with two questions",
    ),
    pytest.param((tell(address(ONE), counted=Reason.DNS_NO_QUERY),), NOTHING, id="a reply without a query"),
    pytest.param(
        (ask(), tell(address(ONE)), tell(address(TWO), counted=Reason.DNS_NO_QUERY)),
        opened({ONE: 300}),
        id="a second reply to one query",
    ),
    pytest.param(
        (
            ask("evil.example"),
            tell(address(ONE), name="evil.example", counted=Reason.DNS_NOT_LISTED),
            tell(address(ONE), name="evil.example", counted=Reason.DNS_NO_QUERY),
        ),
        NOTHING,
        id="a second reply about a name that is not listed",
    ),
    pytest.param(
        (ask("evil.example"), tell(address(ONE), counted=Reason.DNS_NOT_LISTED)),
        NOTHING,
        id="a query for a name that is not listed and a reply about one that is",
    ),
    pytest.param(
        (ask(), ask("evil.example"), tell(address(ONE), counted=Reason.DNS_NOT_LISTED)),
        NOTHING,
        id="an id reused for a name that is not listed ends the first query",
    ),
    pytest.param(
        (ask("evil.example"), ask(), tell(address(ONE))),
        opened({ONE: 300}),
        id="an id reused for a listed name",
    ),
    *(
        # Some clients use what is in a truncated reply; user space asks for the rest.
        pytest.param(
            (ask(), tell(*answers, flags=m.RESPONSE | m.TC, counted=Reason.DNS_TRUNCATED)), expected, id=text
        )
        for text, answers, expected in (
            ("a truncated reply with an address", [address(ONE)], opened({ONE: 300})),
            ("a truncated reply without a record", [], NOTHING),
            ("a truncated reply with half an address", [address(TWO), address(ONE)[:-2]], opened({TWO: 300})),
            ("a truncated reply with a CNAME record alone", [m.cname("cdn.example")], NOTHING),
        )
    ),
    pytest.param(
        (ask(), tell(address(ONE), flags=m.RESPONSE | m.NXDOMAIN, counted=Reason.DNS_NO_ADDRESS)),
        NOTHING,
        id="NXDOMAIN",
    ),
    pytest.param(
        (ask(), tell(address(ONE), flags=m.RESPONSE | m.SERVFAIL, counted=Reason.DNS_NO_ADDRESS)),
        NOTHING,
        id="SERVFAIL",
    ),
    pytest.param((ask(), tell(counted=Reason.DNS_NO_ADDRESS)), NOTHING, id="no record"),
    pytest.param(
        # What it leads to may be asked for next; see test_aliases.py.
        (ask(), tell(m.cname("cdn.example"), counted=Reason.DNS_ALIAS)),
        NOTHING,
        id="a CNAME record alone",
    ),
    pytest.param(
        (ask(), tell(address(ONE, owner=b"\x03www" + m.QUESTION), counted=Reason.DNS_OTHER_NAME)),
        NOTHING,
        id="an address of a child of the name",
    ),
    pytest.param(
        (ask(), tell(address(ONE, owner=b"\0"), counted=Reason.DNS_OTHER_NAME)),
        NOTHING,
        id="an address of the root",
    ),
    pytest.param(
        # Only who asks for such records makes use of them; see test_hints.py.
        (ask(), tell(m.service(m.hint(ONE)), counted=Reason.DNS_NO_ADDRESS)),
        NOTHING,
        id="an address that is only a hint in an HTTPS record",
    ),
    pytest.param(
        (ask(), tell(record(m.A, b"\1\2\3\4", rclass=m.CH), counted=Reason.DNS_NO_ADDRESS)),
        NOTHING,
        id="an A record of class CH",
    ),
    pytest.param(
        (ask(), tell(address(ONE), answer_count=0, counted=Reason.DNS_NO_ADDRESS)),
        NOTHING,
        id="an A record that is not counted as an answer",
    ),
    *(
        pytest.param(
            (ask(), tell(record(rtype, bytes(size)), counted=Reason.DNS_MALFORMED)), NOTHING, id=text
        )
        for rtype, size, text in (
            (m.A, 0, "an empty A record"),
            (m.A, 3, "an A record of 3 octets"),
            (m.A, 5, "an A record of 5 octets"),
            (m.A, 16, "an A record of 16 octets"),
            (m.AAAA, 4, "an AAAA record of 4 octets"),
            (m.AAAA, 15, "an AAAA record of 15 octets"),
            (m.AAAA, 17, "an AAAA record of 17 octets"),
        )
    ),
    pytest.param(
        (ask(), tell(address(ONE)[:-1], counted=Reason.DNS_MALFORMED)), NOTHING, id="an A record cut off"
    ),
    pytest.param(
        (ask(), tell(record(m.TXT, b"\0", length=0xFFFF), counted=Reason.DNS_MALFORMED)),
        NOTHING,
        id="a record that runs past the end",
    ),
    pytest.param(
        (ask(), tell(address(ONE, owner=b"\x3f" + b"a" * 5), counted=Reason.DNS_MALFORMED)),
        NOTHING,
        id="an owner name that runs past the end",
    ),
    pytest.param(
        (ask(), tell(address(ONE), answer_count=2, counted=Reason.DNS_MALFORMED)),
        opened({ONE: 300}),
        id="one record where two are counted",
    ),
    *(
        pytest.param(
            (
                ask(),
                tell(
                    address(ONE, owner=bytes((length,)) + b"a" * length + b"\0"), counted=Reason.DNS_MALFORMED
                ),
            ),
            NOTHING,
            id=f"an owner label of {length:#x} octets",
        )
        for length in (0x40, 0x80, 0xBF)
    ),
    pytest.param(
        (ask(), tell(address(ONE), flags=m.RD, counted=Reason.DNS_MALFORMED)),
        NOTHING,
        id="a query from the resolver",
    ),
    pytest.param(
        (ask(), Reply(b"", (Reason.DNS_MALFORMED,))), NOTHING, id="an empty datagram from the resolver"
    ),
    pytest.param(
        (ask(), Reply(message(b"", flags=m.RESPONSE)[:11], (Reason.DNS_MALFORMED,))),
        NOTHING,
        id="a reply shorter than its header",
    ),
    pytest.param(
        (ask(), replace(tell(address(ONE), counted=Reason.DNS_MALFORMED), udp_length=8 + 12 + 19 + 15)),
        NOTHING,
        id="a record that is only behind the end of the UDP datagram",
    ),
    pytest.param(
        (ask(), replace(tell(address(ONE), counted=Reason.DNS_WRONG_QUESTION), udp_length=8 + 12 + 17)),
        NOTHING,
        id="a question that ends only behind the end of the UDP datagram",
    ),
    pytest.param(
        (ask(m.QUESTION, m.A, Reason.DNS_NOT_A_QUERY), tell(address(ONE), counted=Reason.DNS_NO_QUERY)),
        NOTHING,
        id="a query whose name is a pointer",
    ),
    pytest.param(
        (ask(), tell(address(ONE), name=b"\x08registry\xc0\x1a", counted=Reason.DNS_WRONG_QUESTION)),
        NOTHING,
        id="a reply with a pointer in the question name",
    ),
    pytest.param(
        (ask(b"\x40" + b"a" * 64 + b"\0", m.A, Reason.DNS_NOT_A_QUERY),),
        NOTHING,
        id="a query with a label of 64 octets",
    ),
    pytest.param(
        (ask(labels(*[b"a" * 63] * 3, b"b" * 52, b"deep", b"test"), m.A, Reason.DNS_NOT_A_QUERY),),
        NOTHING,
        id="a query for a name of 256 octets",
    ),
    pytest.param(
        (ask(labels(*[b"z"] * 128), m.A, Reason.DNS_NOT_A_QUERY),), NOTHING, id="a query for 128 labels"
    ),
    pytest.param(
        (ask(wire(m.NAME)[:-1], m.A, Reason.DNS_NOT_A_QUERY),), NOTHING, id="a query whose name does not end"
    ),
    pytest.param(
        (Query(message(wire(m.NAME)), (Reason.ALLOWED_RESOLVER, Reason.DNS_NOT_A_QUERY)),),
        NOTHING,
        id="a query that ends with its name",
    ),
    pytest.param(
        (ask(qtype=m.TXT), tell(address(ONE), qtype=m.TXT, counted=Reason.DNS_NO_QUERY)),
        NOTHING,
        id="a TXT query",
    ),
    pytest.param(
        (ask(qtype=m.ANY), tell(address(ONE), qtype=m.ANY, counted=Reason.DNS_NO_QUERY)),
        NOTHING,
        id="a query for everything",
    ),
    pytest.param(
        (
            Query(message(question(qclass=m.CH)), (Reason.ALLOWED_RESOLVER,)),
            tell(address(ONE), counted=Reason.DNS_NO_QUERY),
        ),
        NOTHING,
        id="a query of class CH",
    ),
    pytest.param(
        (
            Query(message(question(), flags=UPDATE), (Reason.ALLOWED_RESOLVER, Reason.DNS_NOT_A_QUERY)),
            tell(address(ONE), counted=Reason.DNS_NO_QUERY),
        ),
        NOTHING,
        id="an UPDATE instead of a query",
    ),
    pytest.param(
        (
            Query(message(question(), flags=m.RESPONSE), (Reason.ALLOWED_RESOLVER, Reason.DNS_NOT_A_QUERY)),
            tell(address(ONE), counted=Reason.DNS_NO_QUERY),
        ),
        NOTHING,
        id="a reply sent to the resolver",
    ),
    pytest.param(
        (
            replace(ask(), server=UNTRUSTED, counted=(Reason.DENIED_RESOLVER,), passes=False),
            tell(address(ONE), server=UNTRUSTED, counted=Reason.DNS_UNTRUSTED_SENDER),
            tell(address(ONE), counted=Reason.DNS_NO_QUERY),
        ),
        NOTHING,
        id="a query to a server that is not trusted",
    ),
]


@pytest.mark.parametrize(("steps", "expected"), [*RIGHT, *NAMES, *WRONG])
def test_exchange(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(ask(), id="a query"),
        pytest.param(tell(address(ONE)), id="a reply"),
        pytest.param(over_ipv6(ask())[0], id="over IPv6"),
        pytest.param(tell(udp_length=0, trailer=b"behind"), id="with another length than it has"),
    ],
)
def test_frames_of_these_tests_are_what_scapy_makes(step: Datagram) -> None:
    packet = step.packet()
    packet["UDP"].chksum = 0
    if "IP" in packet:
        packet["IP"].chksum = 0
    assert step.frame()[12:] == frame(packet)[12:]


def test_later_answer_prolongs_and_never_shortens(bench: Bench) -> None:
    for ttl, longest in ((300, 300), (60, 300), (900, 900)):
        exchange(bench, ask(), tell(address(ONE, ttl=ttl)))
        left, _ = bench.learned()[ONE, 443]
        assert longest - 60 < left <= longest


def test_settings_of_the_policy_bound_the_time(bench: Bench) -> None:
    with bench.configured(Settings(minimum_ttl=200, maximum_ttl=400)):
        exchange(bench, ask(), tell(address(ONE, ttl=5), address(TWO, ttl=5000), address(SIX, ttl=300)))
    assert {key[0]: round(left, -2) for key, (left, _) in bench.learned().items()} == {
        ONE: 200,
        TWO: 400,
        SIX: 300,
    }


def test_address_of_two_names_has_the_ports_of_both(bench: Bench) -> None:
    exchange(bench, ask(), tell(address(ONE)))
    exchange(bench, ask("ports.test"), tell(address(ONE, ttl=60), name="ports.test"))
    # Each list of ports has its own time.
    found = {
        ports: (bench.pattern_of(opening.rule), opening.flags)
        for (_, ports), opening in bench.openings().items()
    }
    assert found == {(443,): (m.NAME, 0), (443, 5000, 8443): ("ports.test", 0)}
    assert [port for port in (443, 5000, 8443, 80) if bench.egress(ip(ONE) / TCP(dport=port, flags="S"))] == [
        443,
        5000,
        8443,
    ]


def test_only_the_ports_of_the_rule_are_open(bench: Bench) -> None:
    exchange(bench, ask("eight.test"), tell(address(ONE), name="eight.test"))
    allowed = (1, 80, 443, 5000, 5001, 8080, 8443, 65535)
    for port in (*allowed, *(n for p in allowed for n in (p - 1, p + 1) if 0 < n < 65536)):
        assert bench.egress(ip(ONE) / TCP(dport=port)) is (port in allowed)


def test_another_trusted_resolver_does_not_answer_for_the_first(bench: Bench) -> None:
    with bench.trusting(trusted(RESOLVER, "10.0.0.54")):
        bench.egress(ask().frame())
        bench.counted()
        bench.ingress(tell(address(ONE), server="10.0.0.54").frame())
    assert bench.counted() == {Reason.DNS_NO_QUERY: 1}
    assert bench.learned() == {}


def test_resolver_on_a_port_of_its_own(bench: Bench) -> None:
    with bench.trusting(trusted(RESOLVER, port=5353)):
        exchange(bench, ask(server_port=5353), tell(address(ONE), server_port=5353))
        assert set(bench.learned()) == {(ONE, 443)}
        assert not bench.egress(ask().frame())


def test_reply_that_comes_too_late(bench: Bench) -> None:
    bench.egress(ask().frame())
    with bench.configured(Settings(query_lifetime=0)):
        bench.ingress(tell(address(ONE)).frame())
    # The query is over then, however long replies may take from now on.
    bench.ingress(tell(address(ONE)).frame())
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, Reason.DNS_LATE: 1, Reason.DNS_NO_QUERY: 1}
    assert bench.learned() == {}


# A step is a label, the end of a name, a compression pointer, a record, or an opening that is not the first
# of its address; a record and its opening are done in the step in which its owner name ends. One more step
# finds that there are no more records.
STEPS = abi.ANSWER_STEPS * abi.ANSWER_PROGRAMS - 1


def steps_of(count: int) -> bytes:
    """A TXT record that takes so many steps: a pointer into the question, and a label or its end for each."""
    position = len(MOST_LABELS.split(".")) - (count - 2)
    return record(m.TXT, b"", owner=m.pointer(m.HEADER + 2 * position))


@pytest.mark.parametrize(
    ("more", "counted", "expected"),
    [
        pytest.param(0, Reason.DNS_LEARNED, [ONE, TWO], id="as many as are read"),
        pytest.param(1, Reason.DNS_TOO_MANY, [ONE, TWO], id="one step more"),
        pytest.param(2, Reason.DNS_TOO_MANY, [ONE], id="two steps more"),
        pytest.param(100, Reason.DNS_TOO_MANY, [ONE], id="many steps more"),
    ],
)
def test_more_than_is_read_is_handed_over(
    bench: Bench, more: int, counted: Reason, expected: list[str]
) -> None:
    """What was read until then is open: all of it is the resolver's answer."""
    left = STEPS - 128 - 2 + more  # the question's name, and two addresses
    fill = [steps_of(100)] * (left // 100 - 1)
    fill.append(steps_of(left - 100 * len(fill) - 50))
    fill.append(steps_of(50))
    exchange(
        bench, ask(MOST_LABELS), tell(address(ONE), *fill, address(TWO), name=MOST_LABELS, counted=counted)
    )
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, counted: 1}
    assert {text for text, _ in bench.learned()} == set(expected)


@pytest.mark.parametrize("count", [1, 21, 22, 200], ids=lambda count: f"{count} records")
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut off"])
def test_no_walk_is_left_behind(bench: Bench, count: int, cut: bool) -> None:
    """What one run of the program leaves for the next is taken away by that."""
    whole = tell(*map(address, many(count)))
    exchange(bench, ask(), replace(whole, payload=whole.payload[:-1]) if cut else whole)
    assert list(bench.map("walks")) == []


@pytest.mark.parametrize(
    ("count", "counted"),
    [
        pytest.param(4, Reason.DNS_LEARNED, id="4 records"),
        pytest.param(5, Reason.DNS_TOO_MANY, id="5 records"),
    ],
)
def test_owner_names_of_127_labels(bench: Bench, count: int, counted: Reason) -> None:
    answers = [address(text, owner=wire(MOST_LABELS)) for text in many(count)]
    exchange(bench, ask(MOST_LABELS), tell(*answers, name=MOST_LABELS))
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, counted: 1}
    assert {text for text, _ in bench.learned()} == set(many(4))


def test_rule_that_is_gone_opens_nothing(bench: Bench) -> None:
    """It cannot be, short of a mistake of ours; then nothing may open."""
    bench.egress(ask().frame())
    bench.alter_query(rule=1 << 30)
    bench.ingress(tell(address(ONE)).frame())
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, Reason.DNS_MAP_FULL: 1}
    assert bench.learned() == {}


@pytest.mark.parametrize("bit", [0, 1, 31, 32, 63])
def test_every_bit_of_the_identity_counts(bench: Bench, bit: int) -> None:
    bench.egress(ask().frame())
    (query,) = bench.queries()
    bench.alter_query(identity=query.identity ^ 1 << bit)
    bench.ingress(tell(address(ONE)).frame())
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, Reason.DNS_WRONG_QUESTION: 1}


def test_query_over_tcp_is_counted_by_its_data(bench: Bench) -> None:
    """What opens, keeps and ends a connection says nothing; test_tcp.py has what does."""
    for flags in ("S", "A", "FA", "R"):
        assert bench.egress(m.Stream().up(flags=flags))
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 4}
    assert bench.egress(m.Stream().up(m.over_tcp(ask().payload)))
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, Reason.DNS_OVER_TCP: 1}


def test_reply_over_tcp_is_not_read(bench: Bench) -> None:
    bench.egress(ask().frame())
    bench.counted()
    assert bench.ingress(m.Stream().down(m.over_tcp(tell(address(ONE)).payload)))
    assert bench.counted() == {}
    assert bench.learned() == {}


def test_datagram_that_is_not_dns_is_not_counted(bench: Bench) -> None:
    assert bench.ingress(Reply(b"ntp", (), server="192.0.2.123", server_port=123).frame())
    assert bench.counted() == {}


def test_every_cut_of_a_reply(bench: Bench) -> None:
    """A reply cut off anywhere is not read past its end, and opens nothing that it does not hold."""
    whole = tell(address(ONE), address(TWO)).payload
    first = len(tell(address(ONE)).payload)
    for length in range(len(whole)):
        bench.reset()
        exchange(bench, ask(), Reply(whole[:length], ()))
        assert {text for text, _ in bench.learned()} == ({ONE} if length >= first else set())
        (reason,) = set(bench.counted()) - {Reason.ALLOWED_RESOLVER}
        question_end = 12 + len(question())
        assert reason == (Reason.DNS_WRONG_QUESTION if 12 <= length < question_end else Reason.DNS_MALFORMED)


def test_every_octet_of_id_and_question_counts(bench: Bench) -> None:
    whole = tell(address(ONE)).payload
    for at in (0, 1, *range(12, 12 + len(question()))):
        for bit in (1, 2, 0x80):  # not 0x20, which is the case of a letter
            bench.reset()
            changed = bytearray(whole)
            changed[at] ^= bit
            exchange(bench, ask(), Reply(bytes(changed), ()))
            assert bench.learned() == {}, (at, bit)


@pytest.mark.heavy
def test_garbage_opens_nothing(bench: Bench) -> None:
    """Noise of every length as query and reply, with the right id, and behind a right question."""
    noise = random.Random(1)  # the same noise each time
    begun = tell(answer_count=0xFFFF).payload
    count = 0
    for length in range(65):
        for head in (b"", begun[:2], begun[:3] + b"\0", begun[:8], begun):
            garbage = head + noise.randbytes(length)
            exchange(bench, ask(), Reply(garbage, ()), Query(garbage, ()))
            count += 1
    assert bench.learned() == {}
    counted = bench.counted()
    assert counted.pop(Reason.ALLOWED_RESOLVER) == 2 * count
    # One reason for each reply, and one more for each query that is none; none of them learned anything.
    assert counted.keys() <= {
        Reason.DNS_MALFORMED,
        Reason.DNS_NO_QUERY,
        Reason.DNS_WRONG_QUESTION,
        Reason.DNS_NO_ADDRESS,
        Reason.DNS_NOT_A_QUERY,
        Reason.DNS_TRUNCATED,
    }
    assert sum(counted.values()) - counted[Reason.DNS_NOT_A_QUERY] == count

"""HTTPS and SVCB records (RFC 9460): clients connect to what they hint at, so that is opened."""

from __future__ import annotations

import ipaddress

import pytest

from ram_ebpf.dataplane.abi import Reason

from . import messages as m
from .exchanges import (
    DENIED_NAMES,
    LONGEST,
    NOTHING,
    ONE,
    REGISTRIES,
    SEVEN,
    SIX,
    THREE,
    TWO,
    Expected,
    ask,
    check,
    exchange,
    many,
    opened,
    tell,
)
from .messages import (
    ALPN,
    IPV4HINT,
    IPV6HINT,
    UNKNOWN_PARAM,
    Datagram,
    Reply,
    address,
    cname,
    hint,
    param,
    pointer,
    record,
    service,
    wire,
)
from .support import Bench

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

CDN = wire("cdn.example")
FIRST = m.HEADER + 19  # the first record of a reply about registry.test
H3 = param(ALPN, b"\x02h3\x02h2")
PACKED_ONE, PACKED_SIX = ipaddress.ip_address(ONE).packed, ipaddress.ip_address(SIX).packed


def reply(
    *answers: bytes, counted: Reason = Reason.DNS_LEARNED, qtype: int = m.HTTPS, name: str = m.NAME
) -> tuple[Datagram, ...]:
    """An exchange about HTTPS records of registry.test."""
    return ask(name, qtype), tell(*answers, name=name, qtype=qtype, counted=counted)


HINTS = [
    pytest.param(reply(service(hint(ONE))), opened({ONE: 300}), id="an ipv4hint"),
    pytest.param(reply(service(hint(ONE, TWO, THREE))), opened({ONE: 300, TWO: 300, THREE: 300}), id="three"),
    pytest.param(reply(service(hint(SIX, SEVEN))), opened({SIX: 300, SEVEN: 300}), id="an ipv6hint"),
    pytest.param(reply(service(hint(ONE), hint(SIX))), opened({ONE: 300, SIX: 300}), id="both"),
    pytest.param(
        reply(service(H3, hint(ONE), param(UNKNOWN_PARAM, bytes(40)), hint(SIX))),
        opened({ONE: 300, SIX: 300}),
        id="other parameters before and between them",
    ),
    pytest.param(
        reply(service(hint(SIX), hint(ONE))),
        opened({ONE: 300, SIX: 300}),
        id="parameters in the wrong order",
    ),
    pytest.param(reply(service(hint(ONE), hint(TWO))), opened({ONE: 300, TWO: 300}), id="a parameter twice"),
    pytest.param(
        reply(service(hint(ONE), param(UNKNOWN_PARAM))),
        opened({ONE: 300}),
        id="a parameter without a value at the end",
    ),
    pytest.param(
        reply(service(hint(ONE), rtype=m.SVCB), qtype=m.SVCB), opened({ONE: 300}), id="an SVCB record"
    ),
    pytest.param(
        reply(service(hint(ONE), priority=1), service(hint(TWO), priority=2, ttl=60)),
        opened({ONE: 300, TWO: 60}),
        id="two records each with its time to live",
    ),
    pytest.param(
        reply(service(hint(ONE), priority=0)), opened({ONE: 300}), id="AliasMode with parameters all the same"
    ),
    pytest.param(
        reply(service(hint(ONE), target="edge.example")),
        opened({ONE: 300}),
        id="hints for a target with another name",
    ),
    pytest.param(
        reply(service(hint(ONE), owner=wire("REGISTRY.test"))), opened({ONE: 300}), id="an owner written out"
    ),
    pytest.param(
        reply(cname(CDN, ttl=60), service(hint(ONE), owner=CDN)),
        opened({ONE: 60}),
        id="behind a CNAME record, whose time to live counts too",
    ),
    pytest.param(
        reply(cname(CDN), cname("edge.example", CDN), service(hint(ONE), owner=wire("edge.example"), ttl=20)),
        opened({ONE: 20}),
        id="behind two CNAME records",
    ),
    pytest.param(
        reply(service(hint(ONE), ttl=0x80000000)),
        opened({ONE: 1}),
        id="a time to live with the top bit set counts as 0",
    ),
    pytest.param(
        reply(service(hint(*many(200)))), opened(dict.fromkeys(many(200), 300)), id="200 addresses in a hint"
    ),
    pytest.param(
        reply(*(service(hint(text)) for text in many(80))),
        opened(dict.fromkeys(many(80), 300)),
        id="80 records with a hint each",
    ),
    pytest.param(
        reply(service(hint(ONE)), name="eight.test"),
        opened({ONE: 300}, "eight.test"),
        id="for the eight ports of a rule",
    ),
]

PASSED_OVER = [
    pytest.param(
        reply(address(ONE), counted=Reason.DNS_NO_ADDRESS),
        NOTHING,
        id="an A record",
    ),
    pytest.param(
        reply(service(hint(TWO)), address(ONE)),
        opened({TWO: 300}),
        id="an A record beside a hint",
    ),
    pytest.param(
        reply(service(hint(ONE)), address(TWO, owner=CDN)),
        opened({ONE: 300}),
        id="an A record of another name",
    ),
    pytest.param(
        reply(record(m.A, bytes(3)), service(hint(ONE))), opened({ONE: 300}), id="an A record of 3 octets"
    ),
    pytest.param(
        reply(service(hint(ONE), owner=CDN), counted=Reason.DNS_NO_ADDRESS),
        NOTHING,
        id="a hint of another name",
    ),
    pytest.param(
        reply(service(hint(ONE), owner=CDN, target="edge.example"), counted=Reason.DNS_NO_ADDRESS),
        NOTHING,
        id="a target of another name",
    ),
    pytest.param(
        reply(
            record(m.HTTPS, b"\0\1\0" + hint(ONE), rclass=m.CH),
            counted=Reason.DNS_NO_ADDRESS,
        ),
        NOTHING,
        id="a record of class CH",
    ),
    pytest.param(reply(counted=Reason.DNS_NO_ADDRESS), NOTHING, id="no record"),
    pytest.param(reply(service(H3), counted=Reason.DNS_NO_ADDRESS), NOTHING, id="a record without hints"),
    pytest.param(reply(service(), counted=Reason.DNS_NO_ADDRESS), NOTHING, id="a record without parameters"),
    pytest.param(
        reply(service(param(IPV4HINT), param(IPV6HINT)), counted=Reason.DNS_NO_ADDRESS),
        NOTHING,
        id="hints without addresses",
    ),
    pytest.param(
        reply(service(param(5, PACKED_ONE), param(7, PACKED_ONE)), counted=Reason.DNS_NO_ADDRESS),
        NOTHING,
        id="addresses under keys next to those of the hints",
    ),
    pytest.param(
        (
            ask(),
            tell(service(hint(ONE)), address(TWO)),
        ),
        opened({TWO: 300}),
        id="a hint in a reply about A records",
    ),
]

BROKEN = [
    *(
        pytest.param(reply(service(param(key, value)), counted=Reason.DNS_MALFORMED), expected, id=text)
        for key, value, expected, text in (
            (IPV4HINT, PACKED_ONE[:3], NOTHING, "an ipv4hint of 3 octets"),
            (IPV4HINT, PACKED_ONE + b"\xc0", opened({ONE: 300}), "an ipv4hint of 5 octets"),
            (IPV4HINT, PACKED_ONE + bytes((192, 0, 2)), opened({ONE: 300}), "an ipv4hint of 7 octets"),
            (IPV6HINT, PACKED_SIX[:4], NOTHING, "an ipv6hint of 4 octets"),
            (IPV6HINT, PACKED_SIX[:15], NOTHING, "an ipv6hint of 15 octets"),
            (IPV6HINT, PACKED_SIX + bytes(1), opened({SIX: 300}), "an ipv6hint of 17 octets"),
            # What is left over would do as a parameter.
            (IPV6HINT, param(UNKNOWN_PARAM), NOTHING, "an ipv6hint that is a parameter"),
            (
                IPV6HINT,
                PACKED_SIX + param(UNKNOWN_PARAM),
                opened({SIX: 300}),
                "an ipv6hint that ends in a parameter",
            ),
        )
    ),
    pytest.param(
        reply(service(param(IPV4HINT, PACKED_ONE, length=8)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a hint that runs past its record",
    ),
    pytest.param(
        reply(service(param(IPV4HINT, PACKED_ONE, length=8)), address(TWO), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a hint that runs into the next record",
    ),
    pytest.param(
        reply(service(hint(ONE), param(UNKNOWN_PARAM, length=1)), counted=Reason.DNS_MALFORMED),
        opened({ONE: 300}),
        id="an unknown parameter that runs past its record",
    ),
    pytest.param(
        reply(service(hint(ONE), param(UNKNOWN_PARAM, length=0xFFFF)), counted=Reason.DNS_MALFORMED),
        opened({ONE: 300}),
        id="an unknown parameter of 65535 octets",
    ),
    *(
        pytest.param(
            reply(service(hint(ONE), param(UNKNOWN_PARAM)[:size]), counted=Reason.DNS_MALFORMED),
            opened({ONE: 300}),
            id=f"{size} octets of a parameter",
        )
        for size in (1, 2, 3)
    ),
    *(
        pytest.param(
            reply(record(m.HTTPS, b"\0\1\0"[:size]), counted=Reason.DNS_MALFORMED),
            NOTHING,
            id=f"a record of {size} octets",
        )
        for size in (0, 1, 2)
    ),
    pytest.param(
        reply(service(target=b"\x07example"), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target that does not end in its record",
    ),
    pytest.param(
        reply(service(target=b"\x07example"), address(ONE, owner=b"\0"), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target that ends in the next record",
    ),
    pytest.param(
        reply(service(target=b"\xc0"), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target that is half a pointer",
    ),
    pytest.param(
        reply(service(target=pointer(FIRST + 14)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target that points to itself",
    ),
    pytest.param(
        reply(service(hint(ONE), length=10), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a record that ends in its hint",
    ),
    pytest.param(
        reply(service(hint(ONE))[:-1], counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a message that ends in a hint",
    ),
]

# Name in the record, and whether something leads to another name then.
TARGETS = [
    pytest.param(service(target=""), False, id="itself"),
    pytest.param(service(target=CDN), True, id="another name"),
    pytest.param(service(target=CDN, priority=0), True, id="another name in AliasMode"),
    pytest.param(service(target="", priority=0), False, id="no name in AliasMode: there is no such service"),
    pytest.param(service(target=wire(LONGEST)), True, id="a name of 255 octets"),
    pytest.param(service(target=b"\x03cdn" + m.QUESTION), True, id="a compressed name, which must not be"),
    pytest.param(service(H3, target=CDN), True, id="another name, and parameters"),
    pytest.param(service(target=CDN, rtype=m.SVCB), True, id="another name in an SVCB record"),
]


@pytest.mark.parametrize(("steps", "expected"), HINTS)
def test_hint_is_opened(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)


@pytest.mark.parametrize(("steps", "expected"), PASSED_OVER)
def test_nothing_to_open(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)
    assert bench.aliases() == []


@pytest.mark.parametrize(("steps", "expected"), BROKEN)
def test_broken_record(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    """What was read before is open: it is the resolver's answer."""
    check(bench, steps, expected)


@pytest.mark.parametrize(("answer", "leads_on"), TARGETS)
def test_target_is_remembered(bench: Bench, answer: bytes, leads_on: bool) -> None:
    counted = Reason.DNS_ALIAS if leads_on else Reason.DNS_NO_ADDRESS
    check(bench, reply(answer, counted=counted), NOTHING)
    assert [(alias.rule, alias.depth) for alias in bench.aliases()] == [(bench.rule_of(m.NAME), 1)] * leads_on


def test_target_is_remembered_beside_its_hints(bench: Bench) -> None:
    """Clients ask for the target's addresses as well, and hints may be out of date."""
    check(bench, reply(service(hint(ONE), target=CDN)), opened({ONE: 300}))
    assert len(bench.aliases()) == 1


def test_two_targets_are_remembered(bench: Bench) -> None:
    check(
        bench,
        reply(service(target=CDN), service(target="edge.example", priority=2), counted=Reason.DNS_ALIAS),
        NOTHING,
    )
    assert len(bench.aliases()) == 2


def test_cname_record_alone(bench: Bench) -> None:
    check(bench, reply(cname(CDN), counted=Reason.DNS_ALIAS), NOTHING)
    assert len(bench.aliases()) == 1


def test_https_reply_to_a_query_for_addresses(bench: Bench) -> None:
    """The question decides how a reply is read."""
    check(
        bench,
        (ask(), tell(service(hint(ONE)), qtype=m.HTTPS, counted=Reason.DNS_WRONG_QUESTION)),
        NOTHING,
    )


def test_every_cut(bench: Bench) -> None:
    """A reply cut off anywhere is not read past its end, and opens nothing that it does not hold."""
    whole = tell(service(H3, hint(ONE, TWO), target=CDN), qtype=m.HTTPS).payload
    for length in range(FIRST, len(whole)):
        bench.reset()
        exchange(bench, ask(qtype=m.HTTPS), Reply(whole[:length], ()))
        assert bench.learned() == {}, length
        assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, Reason.DNS_MALFORMED: 1}

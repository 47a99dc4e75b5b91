"""CNAME records (RFC 1035 3.3.1, RFC 2181 10.1): which addresses are those of the name asked for."""

from __future__ import annotations

import pytest

from ram_ebpf.dataplane.abi import Reason

from . import messages as m
from .exchanges import (
    DENIED_NAMES,
    NOTHING,
    ONE,
    REGISTRIES,
    SIX,
    THREE,
    TWO,
    Expected,
    ask,
    check,
    opened,
    tell,
)
from .messages import Datagram, address, cname, pointer, record, wire
from .support import Bench

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

CDN, EDGE, POP = wire("cdn.example"), wire("edge.cdn.example"), wire("pop.edge.cdn.example")
RRSIG = 46  # RFC 4034
DATA = 12  # octets of a record before its data, its owner being a pointer
FIRST = m.HEADER + 19  # the first record of a reply about registry.test


def reply(
    *answers: bytes, counted: Reason = Reason.DNS_LEARNED, answer_count: int | None = None, flags: int = 0
) -> tuple[Datagram, ...]:
    """An exchange about registry.test."""
    return ask(), tell(*answers, counted=counted, answer_count=answer_count, flags=m.RESPONSE | flags)


def long_chain(links: int, below: bool = False) -> list[bytes]:
    """Targets below the question's name, or each below the one before it; then the address."""
    answers: list[bytes] = []
    at, owner = FIRST, m.QUESTION
    for number in range(links):
        label = f"n{number:02}".encode()
        answers.append(cname(b"\x03" + label + (owner if below else m.QUESTION), owner=owner))
        owner = pointer(at + DATA)
        at += len(answers[-1])
    return [*answers, address(ONE, owner=owner)]


FOLLOWED = [
    pytest.param(
        reply(cname(CDN), address(ONE, owner=CDN), address(TWO, owner=CDN)),
        opened({ONE: 300, TWO: 300}),
        id="one link",
    ),
    pytest.param(
        reply(cname(CDN), cname(EDGE, CDN), cname(POP, EDGE), address(ONE, owner=POP)),
        opened({ONE: 300}),
        id="three links in order",
    ),
    pytest.param(reply(*long_chain(16)), opened({ONE: 300}), id="16 links"),
    pytest.param(
        reply(*long_chain(16, below=True)), opened({ONE: 300}), id="16 links to longer and longer names"
    ),
    pytest.param(reply(*long_chain(100)), opened({ONE: 300}), id="100 links"),
    pytest.param(
        (
            ask(qtype=m.AAAA),
            tell(cname(CDN), address(SIX, owner=CDN), qtype=m.AAAA),
        ),
        opened({SIX: 300}),
        id="one link and an AAAA record",
    ),
    pytest.param(
        (
            ask("img-7.one.test"),
            tell(cname("other.test"), address(ONE, owner=wire("other.test")), name="img-7.one.test"),
        ),
        opened({ONE: 300}, "img-*.one.test"),
        id="a link to a name with a rule of its own: the rule of the name asked for decides",
    ),
    pytest.param(
        reply(cname(m.QUESTION), address(ONE)), opened({ONE: 300}), id="a name that is its own target"
    ),
    pytest.param(
        reply(cname(wire(m.NAME)), address(ONE)),
        opened({ONE: 300}),
        id="a name that is its own target, written out",
    ),
    pytest.param(
        reply(cname(CDN), cname(m.QUESTION, CDN), address(ONE)), opened({ONE: 300}), id="a loop of two"
    ),
    pytest.param(
        reply(address(ONE), cname(CDN), address(TWO, owner=CDN)),
        opened({ONE: 300, TWO: 300}),
        id="an address of the name itself before its link",
    ),
    pytest.param(
        reply(record(RRSIG, bytes(40)), cname(CDN), record(RRSIG, bytes(40), CDN), address(ONE, owner=CDN)),
        opened({ONE: 300}),
        id="signatures in between",
    ),
    pytest.param(
        reply(
            record(m.DNAME, wire("net.example"), owner=pointer(m.HEADER + 9)),
            cname("registry.net.example"),
            address(ONE, owner=wire("registry.net.example")),
        ),
        opened({ONE: 300}),
        id="a DNAME record and the CNAME record that goes with it",
    ),
    pytest.param(reply(cname(b"\0"), address(ONE, owner=b"\0")), opened({ONE: 300}), id="a link to the root"),
]

TIMES = [
    pytest.param(reply(cname(CDN, ttl=60), address(ONE, owner=CDN)), opened({ONE: 60}), id="of the link"),
    pytest.param(
        reply(cname(CDN, ttl=900), address(ONE, owner=CDN, ttl=100)), opened({ONE: 100}), id="of the address"
    ),
    pytest.param(
        reply(
            cname(CDN, ttl=900),
            cname(EDGE, CDN, ttl=60),
            cname(POP, EDGE, ttl=700),
            address(ONE, owner=POP, ttl=500),
            address(TWO, owner=POP, ttl=20),
            address(THREE, owner=POP, ttl=500),
        ),
        opened({ONE: 60, TWO: 20, THREE: 60}),
        id="of the shortest link, or of the address itself",
    ),
    pytest.param(
        reply(address(ONE, ttl=900), cname(CDN, ttl=60), address(TWO, owner=CDN)),
        opened({ONE: 900, TWO: 60}),
        id="of links that lead to it, and of no later one",
    ),
    pytest.param(
        reply(cname(CDN, ttl=0), address(ONE, owner=CDN)), opened({ONE: 1}), id="of a link that is for now"
    ),
    pytest.param(
        reply(cname(CDN, ttl=0x80000000 + 300), address(ONE, owner=CDN)),
        opened({ONE: 1}),
        id="of a link with the top bit set counts as 0",
    ),
    pytest.param(
        reply(cname(CDN, ttl=0x7FFFFFFF), address(ONE, owner=CDN, ttl=0x7FFFFFFF)),
        opened({ONE: 86400}),
        id="at most the maximum",
    ),
    pytest.param(
        reply(cname(EDGE, POP, ttl=5), cname(CDN), address(ONE, owner=CDN)),
        opened({ONE: 300}),
        id="not of another name's link",
    ),
]

OTHERS = [
    pytest.param(
        reply(address(TWO, owner=CDN), address(ONE), counted=Reason.DNS_OTHER_NAME),
        opened({ONE: 300}),
        id="an address of another name before the right one",
    ),
    pytest.param(
        reply(address(ONE), address(TWO, owner=CDN), counted=Reason.DNS_OTHER_NAME),
        opened({ONE: 300}),
        id="an address of another name behind the right one",
    ),
    pytest.param(
        reply(address(TWO, owner=CDN), cname(CDN), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="the address before its link",
    ),
    pytest.param(
        reply(cname(EDGE, CDN), cname(CDN), address(ONE, owner=EDGE), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="two links in the other order",
    ),
    pytest.param(
        reply(cname(CDN), address(TWO), address(ONE, owner=CDN), counted=Reason.DNS_OTHER_NAME),
        opened({ONE: 300}),
        id="an address of the name itself behind its link",
    ),
    pytest.param(
        reply(
            cname(CDN),
            cname(EDGE),
            address(ONE, owner=CDN),
            address(TWO, owner=EDGE),
            counted=Reason.DNS_OTHER_NAME,
        ),
        opened({ONE: 300}),
        id="a second link of one name",
    ),
    pytest.param(
        reply(cname(CDN), address(ONE, owner=EDGE), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="an address of a child of the target",
    ),
    pytest.param(
        reply(record(m.CNAME, CDN, rclass=m.CH), address(ONE, owner=CDN), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="a link of class CH",
    ),
    pytest.param(
        reply(
            record(m.DNAME, wire("net.example"), owner=pointer(m.HEADER + 9)),
            address(ONE, owner=wire("registry.net.example")),
            counted=Reason.DNS_OTHER_NAME,
        ),
        NOTHING,
        id="a DNAME record without the CNAME record that goes with it",
    ),
    pytest.param(
        reply(address(ONE, owner=wire("other.test")), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="an address of another allowed name alone",
    ),
]

BROKEN = [
    *(
        pytest.param(
            reply(cname(CDN, length=length), address(ONE, owner=CDN), counted=Reason.DNS_MALFORMED),
            NOTHING,
            id=f"a target of 13 octets in data of {length}",
        )
        for length in (0, 1, 12, 14, 0xFFFF)
    ),
    pytest.param(
        reply(cname(m.QUESTION, length=1), address(ONE), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target that is a pointer in data of 1",
    ),
    pytest.param(
        reply(cname(m.QUESTION + b"\0"), address(ONE), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target that is a pointer in data of 3",
    ),
    pytest.param(
        reply(cname(b"\x03cdn"), address(ONE), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target that does not end in its data",
    ),
    pytest.param(
        reply(cname(pointer(FIRST + DATA)), address(ONE), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target that points to itself",
    ),
    pytest.param(
        reply(cname(b"\x40" + b"a" * 64 + b"\0"), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target with a label of 64 octets",
    ),
    pytest.param(
        reply(address(TWO), cname(CDN, length=12), counted=Reason.DNS_MALFORMED),
        opened({TWO: 300}),
        id="a wrong length behind what is right",
    ),
]

COUNTS = [
    *(
        pytest.param(
            reply(address(ONE), address(TWO), answer_count=count, counted=Reason.DNS_MALFORMED),
            opened({ONE: 300, TWO: 300}),
            id=f"{count} where there are two",
        )
        for count in (3, 10_000, 65_535)
    ),
    pytest.param(
        reply(address(ONE), address(TWO), answer_count=1),
        opened({ONE: 300}),
        id="one where there are two",
    ),
    pytest.param(
        reply(cname(CDN), address(ONE, owner=CDN), answer_count=1, counted=Reason.DNS_ALIAS),
        NOTHING,
        id="the link alone",
    ),
    pytest.param(
        (ask(), tell(cname(CDN), additional=[address(ONE, owner=CDN)], counted=Reason.DNS_ALIAS)),
        NOTHING,
        id="the address in the additional section",
    ),
    pytest.param(
        (ask(), tell(cname(m.QUESTION), counted=Reason.DNS_NO_ADDRESS)),
        NOTHING,
        id="a name that is its own target, and no address",
    ),
    pytest.param(
        reply(cname(CDN), flags=m.NXDOMAIN, counted=Reason.DNS_NO_ADDRESS),
        NOTHING,
        id="a link to a name that does not exist",
    ),
    pytest.param(
        reply(cname(CDN), address(ONE, owner=CDN), flags=m.TC, counted=Reason.DNS_TRUNCATED),
        opened({ONE: 300}),
        id="a link and its address, truncated",
    ),
]


@pytest.mark.parametrize(("steps", "expected"), FOLLOWED)
def test_chain(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)
    # The client has its addresses: what the chain leads to need not be asked for.
    assert bench.aliases() == []


@pytest.mark.parametrize(("steps", "expected"), TIMES)
def test_shortest_time_to_live(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)


@pytest.mark.parametrize(("steps", "expected"), OTHERS)
def test_records_of_other_names(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)


@pytest.mark.parametrize(("steps", "expected"), BROKEN)
def test_broken_target(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)
    assert bench.aliases() == []


@pytest.mark.parametrize(("steps", "expected"), COUNTS)
def test_number_of_records(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)

"""Names in replies (RFC 1035 3.1, 4.1.4): compressed in every way, as long as can be, in any letter case."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from ram_ebpf.dataplane.abi import Reason

from . import messages as m
from .exchanges import (
    DENIED_NAMES,
    LONGEST,
    MOST_LABELS,
    NOTHING,
    ONE,
    REGISTRIES,
    TWO,
    Expected,
    ask,
    check,
    exchange,
    opened,
    tell,
)
from .messages import Datagram, Reply, address, cname, labels, pointer, question, record, wire
from .support import Bench

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

TEST = m.HEADER + 9  # the second label of registry.test
FIRST = m.HEADER + len(question())  # the first record of a reply about it
FIXED = 10  # octets of a record between its owner name and its data


def reply(*answers: bytes, counted: Reason = Reason.DNS_LEARNED) -> tuple[Datagram, ...]:
    """An exchange about registry.test."""
    return ask(), tell(*answers, counted=counted)


def behind(*answers: bytes) -> int:
    """Where the record behind these begins."""
    return FIRST + sum(map(len, answers))


WRITTEN = address(TWO, owner=wire(m.NAME))
COMPRESSED = address(TWO)
HALF = address(TWO, owner=b"\x08registry" + pointer(TEST))
CNAME_AT_FIRST = cname("cdn.example")
TARGET = FIRST + 2 + FIXED
# Each points to the one before it, the first to the address before them all.
HOPS = [
    record(m.TXT, b"", owner=pointer(behind(COMPRESSED) + 12 * (number - 1) if number else FIRST))
    for number in range(20)
]

POINTERS = [
    pytest.param(
        reply(WRITTEN, address(ONE, owner=pointer(FIRST))),
        opened({ONE: 300, TWO: 300}),
        id="to an earlier owner name",
    ),
    pytest.param(
        reply(HALF, address(ONE, owner=pointer(FIRST))),
        opened({ONE: 300, TWO: 300}),
        id="to an earlier owner name that is half compressed",
    ),
    pytest.param(
        reply(COMPRESSED, address(ONE, owner=pointer(FIRST))),
        opened({ONE: 300, TWO: 300}),
        id="to a pointer",
    ),
    pytest.param(
        reply(address(TWO), *HOPS, address(ONE, owner=pointer(behind(COMPRESSED, *HOPS[:-1])))),
        opened({ONE: 300, TWO: 300}),
        id="to a pointer to a pointer, 21 times",
    ),
    pytest.param(
        reply(CNAME_AT_FIRST, address(ONE, owner=pointer(TARGET))),
        opened({ONE: 300}),
        id="to the target of a CNAME record",
    ),
    pytest.param(
        reply(
            CNAME_AT_FIRST,
            record(m.TXT, b"", owner=pointer(TARGET)),
            address(ONE, owner=pointer(behind(CNAME_AT_FIRST))),
        ),
        opened({ONE: 300}),
        id="to a pointer to the target of a CNAME record",
    ),
    pytest.param(
        reply(
            CNAME_AT_FIRST,
            cname(b"\x03www" + pointer(TARGET + 4), owner=pointer(TARGET)),
            address(ONE, owner=b"\x03www" + pointer(TARGET + 4)),
        ),
        opened({ONE: 300}),
        id="into the target of a CNAME record",
    ),
    pytest.param(
        reply(cname(b"\x03cdn" + m.QUESTION), address(ONE, owner=pointer(TARGET))),
        opened({ONE: 300}),
        id="in the target of a CNAME record",
    ),
    pytest.param(
        reply(cname(pointer(TEST)), address(ONE, owner=pointer(TEST))),
        opened({ONE: 300}),
        id="as the target of a CNAME record",
    ),
    pytest.param(
        reply(cname(pointer(TEST)), address(ONE, owner=wire("test")), address(TWO, owner=pointer(TARGET))),
        opened({ONE: 300, TWO: 300}),
        id="as the target of a CNAME record, and the name written out behind it",
    ),
    pytest.param(
        reply(record(m.TXT, wire(m.NAME)), address(ONE, owner=pointer(FIRST + 2 + FIXED))),
        opened({ONE: 300}),
        id="to the same name in data of any type",
    ),
    pytest.param(
        reply(record(m.TXT, b"\x08registry" + pointer(TEST)), address(ONE, owner=pointer(FIRST + 12))),
        opened({ONE: 300}),
        id="to a pointer in data of any type",
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(TEST)), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="to the end of the question's name",
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(m.HEADER + 14)), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="to the root at the end of the question's name",
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(m.HEADER + 1)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="into a label, to a letter",
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(FIRST)), counted=Reason.DNS_MALFORMED), NOTHING, id="to itself"
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(FIRST + 1)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="to its own second octet",
    ),
    pytest.param(
        reply(address(ONE, owner=b"\x01x" + pointer(FIRST)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="to the label before it",
    ),
    pytest.param(
        reply(
            address(ONE, owner=pointer(behind(COMPRESSED))),
            record(m.TXT, b"", owner=wire(m.NAME)),
            counted=Reason.DNS_MALFORMED,
        ),
        NOTHING,
        id="forward to the same name",
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(FIRST + 16)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="to the end of the message",
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(0x3FFF)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="far past the end of the message",
    ),
    pytest.param(
        reply(
            record(m.TXT, pointer(behind(record(m.TXT, b"\0\0")))),
            address(ONE, owner=pointer(TARGET)),
            counted=Reason.DNS_MALFORMED,
        ),
        NOTHING,
        id="in a loop of two",
    ),
    pytest.param(
        reply(
            record(m.TXT, pointer(TARGET)),
            address(ONE, owner=pointer(TARGET)),
            counted=Reason.DNS_MALFORMED,
        ),
        NOTHING,
        id="to a loop of one",
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(4)), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="into the header, where it reads as the root",
    ),
    pytest.param(
        # From the low octet of QDCOUNT: the labels "\0" and "\0", and the end in NSCOUNT.
        reply(address(ONE, owner=pointer(5)), counted=Reason.DNS_OTHER_NAME),
        NOTHING,
        id="into the header, where it reads as a name",
    ),
    pytest.param(
        reply(address(ONE, owner=pointer(2)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="into the header, where it reads as no label",
    ),
    pytest.param(
        reply(address(TWO), b"\xc0", counted=Reason.DNS_MALFORMED),
        opened({TWO: 300}),
        id="cut off",
    ),
    pytest.param(
        reply(record(m.TXT, b"\xc0"), address(ONE, owner=pointer(FIRST + 12)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="to half a pointer, whose other half is the next record",
    ),
]


@pytest.mark.parametrize(("steps", "expected"), POINTERS)
def test_pointer(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)


NEARLY = ".".join(["a" * 63] * 3 + ["b" * 49, "deep", "test"])  # 253 octets
TOO_LONG = labels(*[b"a" * 63] * 3, b"b" * 62)  # 256 octets

LENGTHS = [
    pytest.param(
        (ask(LONGEST), tell(address(ONE, owner=wire(LONGEST)), name=LONGEST)),
        opened({ONE: 300}, "**.deep.test"),
        id="an owner name of 255 octets",
    ),
    pytest.param(
        (ask(MOST_LABELS), tell(address(ONE, owner=wire(MOST_LABELS)), name=MOST_LABELS)),
        opened({ONE: 300}, "**.z"),
        id="an owner name of 127 labels",
    ),
    pytest.param(
        reply(cname(LONGEST), address(ONE, owner=wire(LONGEST))),
        opened({ONE: 300}),
        id="a target of 255 octets, and its address",
    ),
    pytest.param(
        reply(cname(MOST_LABELS), address(ONE, owner=wire(MOST_LABELS))),
        opened({ONE: 300}),
        id="a target of 127 labels, and its address",
    ),
    pytest.param(
        reply(cname(MOST_LABELS), address(ONE, owner=pointer(TARGET))),
        opened({ONE: 300}),
        id="a target of 127 labels, and its address behind a pointer",
    ),
    pytest.param(
        reply(cname(TOO_LONG), address(ONE, owner=pointer(TARGET)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target of 256 octets",
    ),
    pytest.param(
        reply(cname(labels(*[b"z"] * 128)), counted=Reason.DNS_MALFORMED),
        NOTHING,
        id="a target of 128 labels",
    ),
    pytest.param(
        (ask(), tell(address(ONE, owner=TOO_LONG), counted=Reason.DNS_MALFORMED)),
        NOTHING,
        id="an owner name of 256 octets",
    ),
    pytest.param(
        (
            ask(NEARLY),
            tell(
                cname(b"\x01c" + m.QUESTION),
                address(ONE, owner=b"\x01c" + m.QUESTION),
                name=NEARLY,
            ),
        ),
        opened({ONE: 300}, "**.deep.test"),
        id="a name of 255 octets, which a pointer makes",
    ),
    pytest.param(
        (
            ask(NEARLY),
            tell(address(ONE, owner=b"\x02cc" + m.QUESTION), name=NEARLY, counted=Reason.DNS_MALFORMED),
        ),
        NOTHING,
        id="a name of 256 octets, which a pointer makes",
    ),
]


@pytest.mark.parametrize(("steps", "expected"), LENGTHS)
def test_length(bench: Bench, steps: tuple[Datagram, ...], expected: Expected) -> None:
    check(bench, steps, expected)


_ALPHABET = b"abcdefghijklmnopqrstuvwxyz"


def same(*rows: tuple[str, bytes, bytes]) -> Iterator[object]:
    for text, target, owner in rows:
        yield pytest.param(target, owner, True, id=text)


def different(*rows: tuple[str, bytes, bytes]) -> Iterator[object]:
    for text, target, owner in rows:
        yield pytest.param(target, owner, False, id=text)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("target", "owner", "is_same"),
    [
        *same(
            ("all letters", labels(_ALPHABET), labels(_ALPHABET.upper())),
            *(
                (f"a label of {size} octets", labels(b"x" * size, b"test"), labels(b"X" * size, b"TEST"))
                for size in (1, 7, 8, 15, 16, 17, 31, 32, 63)
            ),
            ("octets that no host name has", labels(b"a\0.\xff b"), labels(b"A\0.\xff B")),
            ("the root", b"\0", b"\0"),
        ),
        *different(
            ("@ and `", labels(b"a@b"), labels(b"a`b")),
            ("[ and {", labels(b"a[b"), labels(b"a{b")),
            ("_ and DEL", labels(b"a_b"), labels(b"a\x7fb")),
            ("Z and the octet 0x20 less", labels(b"aZb"), labels(b"a:b")),
            ("letters of Latin-1", labels(b"\xc1"), labels(b"\xe1")),
            ("a letter with its top bit set", labels(b"a"), labels(b"\xe1")),
            ("a hyphen and a carriage return", labels(b"a-b"), labels(b"a\x0db")),
            ("a label's end elsewhere", labels(b"ab", b"c"), labels(b"a", b"bc")),
            ("no label's end", labels(b"ab", b"c"), labels(b"abc")),
            ("a dot in a label", labels(b"a", b"b"), labels(b"a.b")),
            ("a length octet in a label", labels(b"a", b"b"), labels(b"a\x01b")),
            ("a NUL at the end of a label", labels(b"a"), labels(b"a\0")),
            ("a NUL behind 7 octets", labels(b"a" * 7), labels(b"a" * 7 + b"\0")),
            ("NULs up to where longer labels begin", labels(b"a" * 15), labels(b"a" * 15 + b"\0")),
            ("a NUL at the end of a long label", labels(b"a" * 20), labels(b"a" * 20 + b"\0")),
            ("one label more", labels(b"a", b"test"), labels(b"a", b"test", b"test")),
            ("a parent", labels(b"a", b"test"), labels(b"test")),
            ("the order of the labels", labels(b"a", b"b"), labels(b"b", b"a")),
            ("the root", labels(b"a"), b"\0"),
            ("the last octet of 63", labels(b"a" * 63), labels(b"a" * 62 + b"b")),
        ),
    ],
)
def test_two_names(bench: Bench, target: bytes, owner: bytes, is_same: bool) -> None:
    """A CNAME record leads to one, and an address has the other as its owner, and the other way round."""
    for one, other in ((target, owner), (owner, target)):
        exchange(bench, ask(), tell(cname(one), address(ONE, owner=other)))
        counted = Reason.DNS_LEARNED if is_same else Reason.DNS_OTHER_NAME
        assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, counted: 1}
        assert bool(bench.learned()) is is_same
        bench.reset()


CASES = [
    pytest.param("ReGiStRy.TeSt", wire("rEgIsTrY.tEsT"), id="question and owner"),
    pytest.param("registry.test", wire("REGISTRY.TEST"), id="the owner alone"),
    pytest.param("REGISTRY.TEST", b"\x08registry" + pointer(TEST), id="half of the owner"),
]


@pytest.mark.parametrize(("asked", "owner"), CASES)
def test_letter_case(bench: Bench, asked: str, owner: bytes) -> None:
    """As draft-vixie-dnsext-dns0x20 makes them, and servers that write each name in a way of their own."""
    check(bench, (ask(asked), tell(address(ONE, owner=owner), name=asked)), opened({ONE: 300}))
    bench.reset()
    chain = (cname("CDN.Example", owner=owner), address(ONE, owner=wire("cdn.eXAMPLE")))
    check(bench, (ask(asked), tell(*chain, name=asked)), opened({ONE: 300}))


@pytest.mark.heavy
def test_one_octet_makes_another_name(bench: Bench) -> None:
    """Names of all shapes, and others that differ in a bit which is not the case of a letter."""
    pick = random.Random(7)  # the same names each time
    for _ in range(300):
        parts = [
            pick.randbytes(pick.choice((1, 2, 7, 8, 15, 16, 17, 40, 63))) for _ in range(pick.randint(1, 3))
        ]
        which = pick.randrange(len(parts))
        at, bit = pick.randrange(len(parts[which])), pick.randrange(8)
        changed = bytearray(parts[which])
        changed[at] ^= 1 << bit
        if changed.lower() == parts[which].lower():
            continue
        others = [*parts[:which], bytes(changed), *parts[which + 1 :]]
        exchange(bench, ask(), tell(cname(labels(*parts)), address(ONE, owner=labels(*others))))
        assert bench.learned() == {}, (parts, others)


def test_every_cut_of_a_chain(bench: Bench) -> None:
    """A reply cut off anywhere is not read past its end, and opens nothing that it does not hold."""
    records = (cname(b"\x03cdn" + m.QUESTION), address(TWO, owner=pointer(TARGET)), HALF)
    whole = tell(*records).payload
    complete = behind(*records[:2])
    for length in range(FIRST, len(whole)):
        bench.reset()
        exchange(bench, ask(), Reply(whole[:length], ()))
        assert {text for text, _ in bench.learned()} == ({TWO} if length >= complete else set()), length
        assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, Reason.DNS_MALFORMED: 1}

"""Reading DNS messages that others wrote."""

from __future__ import annotations

import ipaddress
import struct

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ram_ebpf.dns.lookup import types_for
from ram_ebpf.dns.response import Answer, question_name, question_type, read_message

ip = ipaddress.ip_address
HEADER = struct.Struct("!6H")
CLASS_IN, CLASS_CHAOS, CLASS_HESIOD, CLASS_ANY = 1, 3, 4, 255
TYPE_A, TYPE_AAAA = 1, 28


def message(name: str, kind: str, *records: tuple[str, int, str, str], flags: int = 0) -> bytes:
    """A reply in wire format; records are name, time to live, type and value."""
    response = dns.message.make_response(dns.message.make_query(name, kind))
    response.flags |= flags
    for owner, ttl, rdtype, value in records:
        response.answer.append(dns.rrset.from_text(owner, ttl, "IN", rdtype, value))
    return response.to_wire()


PLAIN = message("ghcr.io.", "A", ("ghcr.io.", 60, "A", "192.0.2.1"))


def wire_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def of_class(rdclass: int, kind: int, data: bytes) -> bytes:
    """A reply with one record of a class of its own."""
    name = wire_name("ghcr.io")
    return (
        HEADER.pack(1, 0x8180, 1, 1, 0, 0)
        + name
        + struct.pack("!HH", kind, rdclass)
        + name
        + struct.pack("!HHIH", kind, rdclass, 60, len(data))
        + data
    )


def test_addresses() -> None:
    assert read_message(PLAIN) == Answer("ghcr.io", ((ip("192.0.2.1"), 60),))
    two = message("ghcr.io.", "AAAA", ("ghcr.io.", 5, "AAAA", "2001:db8::1"), ("ghcr.io.", 5, "AAAA", "::2"))
    assert read_message(two) == Answer("ghcr.io", ((ip("2001:db8::1"), 5), (ip("::2"), 5)))


def test_lower_case() -> None:
    answer = read_message(message("GHCR.Io.", "A", ("GHCR.Io.", 60, "A", "192.0.2.1")))
    assert answer is not None
    assert answer.name == "ghcr.io"


def test_a_chain_of_aliases() -> None:
    """The name is the one asked for; the times are those of the addresses."""
    wire = message(
        "registry.corp.example.",
        "A",
        ("registry.corp.example.", 3600, "CNAME", "r.cdn.example."),
        ("r.cdn.example.", 300, "CNAME", "edge7.cdn.example."),
        ("edge7.cdn.example.", 20, "A", "192.0.2.7"),
        ("edge7.cdn.example.", 20, "A", "192.0.2.8"),
    )
    assert read_message(wire) == Answer(
        "registry.corp.example", ((ip("192.0.2.7"), 20), (ip("192.0.2.8"), 20))
    )


def test_other_records_are_passed_over() -> None:
    wire = message(
        "ghcr.io.",
        "ANY",
        ("ghcr.io.", 60, "TXT", '"192.0.2.9"'),
        ("ghcr.io.", 60, "MX", "10 mail.ghcr.io."),
        ("ghcr.io.", 60, "A", "192.0.2.1"),
    )
    assert read_message(wire) == Answer("ghcr.io", ((ip("192.0.2.1"), 60),))


def test_hints_are_addresses_too() -> None:
    """RFC 9460 7.3: a client may connect to them without asking for more."""
    wire = message(
        "ghcr.io.", "HTTPS", ("ghcr.io.", 60, "HTTPS", "1 . ipv4hint=192.0.2.3 ipv6hint=2001:db8::3")
    )
    assert read_message(wire) == Answer("ghcr.io", ((ip("192.0.2.3"), 60), (ip("2001:db8::3"), 60)))


def test_no_address() -> None:
    assert read_message(message("ghcr.io.", "A")) == Answer("ghcr.io", ())


def test_the_root() -> None:
    answer = read_message(message(".", "A"))
    assert answer is not None
    assert answer.addresses == ()


def test_control_characters_in_names_are_escaped() -> None:
    query = dns.message.make_query(dns.name.Name([b"a\x1b[2J\n", b"example", b""]), "A")
    answer = read_message(dns.message.make_response(query).to_wire())
    assert answer is not None
    assert answer.name == r"a\027[2j\010.example"


def test_truncated() -> None:
    whole = message("ghcr.io.", "A", ("ghcr.io.", 60, "A", "192.0.2.1"), flags=dns.flags.TC)
    assert read_message(whole) == Answer("ghcr.io", ((ip("192.0.2.1"), 60),), truncated=True)
    empty = message("ghcr.io.", "A", flags=dns.flags.TC)
    assert read_message(empty) == Answer("ghcr.io", (), truncated=True)


def test_bytes_behind_the_message() -> None:
    assert read_message(PLAIN + b"\0" * 40) == read_message(PLAIN)


def test_queries_are_no_replies() -> None:
    assert read_message(dns.message.make_query("ghcr.io.", "A").to_wire()) is None


@pytest.mark.parametrize("questions", [0, 2])
def test_replies_without_exactly_one_question(questions: int) -> None:
    question = wire_name("ghcr.io") + struct.pack("!HH", TYPE_A, CLASS_IN)
    wire = HEADER.pack(1, 0x8180, questions, 0, 0, 0) + question * questions
    assert read_message(wire) is None


def test_cut_messages() -> None:
    wire = message("ghcr.io.", "A", ("ghcr.io.", 60, "A", "192.0.2.1"))
    for length in range(len(wire)):
        assert read_message(wire[:length]) is None


@pytest.mark.parametrize("kind", [TYPE_A, TYPE_AAAA])
@pytest.mark.parametrize("rdclass", [CLASS_HESIOD, CLASS_ANY, 4096])
def test_address_records_of_other_classes_are_no_addresses(rdclass: int, kind: int) -> None:
    answer = read_message(of_class(rdclass, kind, b"\xc0\0\2\1" if kind == TYPE_A else b"\0" * 16))
    assert answer is None or answer.addresses == ()


def test_an_address_of_chaosnet_is_no_address() -> None:
    """It is a name and 16 bits (RFC 1035 3.3 leaves it to the class)."""
    answer = read_message(of_class(CLASS_CHAOS, TYPE_A, wire_name("mit") + b"\2\1"))
    assert answer is None or answer.addresses == ()


@given(st.binary(max_size=600))
def test_any_bytes(wire: bytes) -> None:
    answer = read_message(wire)
    assert answer is None or isinstance(answer, Answer)
    question_name(wire)
    assert types_for(question_type(wire))


@settings(max_examples=300, derandomize=True)
@given(
    st.integers(0, 0xFFFF).map(lambda flags: flags | 0x8000),
    st.sampled_from([1, 2, 5, 6, 16, 28, 33, 41, 46, 65, 250]),
    st.sampled_from([1, 3, 4, 254, 255]),
    st.binary(max_size=40),
    st.integers(0, 2),
)
def test_any_record(flags: int, kind: int, rdclass: int, data: bytes, section: int) -> None:
    counts = [0, 0, 0]
    counts[section] = 1
    wire = (
        HEADER.pack(1, flags, 1, *counts)
        + wire_name("ghcr.io")
        + struct.pack("!HH", TYPE_A, CLASS_IN)
        + b"\xc0\x0c"
        + struct.pack("!HHIH", kind, rdclass, 60, len(data))
        + data
    )
    answer = read_message(wire)
    assert answer is None or answer.name == "ghcr.io"


def test_every_wrong_byte() -> None:
    rdclass = len(PLAIN) - 12  # of the answer; there is a test of classes above
    for position in set(range(len(PLAIN))) - {rdclass, rdclass + 1}:
        for value in range(256):
            wire = PLAIN[:position] + bytes([value]) + PLAIN[position + 1 :]
            answer = read_message(wire)
            assert answer is None or len(answer.addresses) < 2
            question_name(wire)
            question_type(wire)


def test_question_name() -> None:
    assert question_name(PLAIN) == "ghcr.io"
    assert question_name(dns.message.make_query("GHCR.IO.", "AAAA").to_wire()) == "ghcr.io"


def test_question_name_of_cut_messages() -> None:
    end = 12 + len(wire_name("ghcr.io"))
    for length in range(len(PLAIN)):
        assert question_name(PLAIN[:length]) == ("ghcr.io" if length >= end else None)


@pytest.mark.parametrize(
    ("kind", "number"), [("A", 1), ("AAAA", 28), ("HTTPS", 65), ("SVCB", 64), ("MX", 15)]
)
def test_question_type(kind: str, number: int) -> None:
    assert question_type(message("ghcr.io.", kind)) == number
    assert question_type(dns.message.make_query("a.very.long.name.example.", kind).to_wire()) == number
    assert question_type(dns.message.make_query(".", kind).to_wire()) == number


def test_question_type_of_cut_messages() -> None:
    end = 12 + len(wire_name("ghcr.io")) + 2
    for length in range(len(PLAIN)):
        assert question_type(PLAIN[:length]) == (TYPE_A if length >= end else None)


@pytest.mark.parametrize(
    ("asked", "instead"),
    [
        (1, [1]),
        (28, [28]),
        (65, [65]),
        (64, [64]),
        (None, [1, 28]),
        (0, [1, 28]),
        (15, [1, 28]),
        (255, [1, 28]),
        (65535, [1, 28]),
    ],
)
def test_what_is_asked_instead(asked: int | None, instead: list[int]) -> None:
    assert list(types_for(asked)) == instead


@pytest.mark.parametrize(
    "name",
    [
        b"\xc0\x0c",  # a pointer to itself
        b"\xc0\xff",  # ahead
        b"\xff" + b"a" * 63,  # a label type that there is not
        b"\x40a",
        (b"\x3f" + b"a" * 63) * 5 + b"\0",  # more than 255 octets
    ],
)
def test_question_name_that_is_none(name: bytes) -> None:
    assert question_name(bytes(12) + name) is None
    assert question_type(bytes(12) + name + b"\0\1\0\1") is None
    assert read_message(HEADER.pack(1, 0x8180, 1, 0, 0, 0) + name + b"\0\1\0\1") is None

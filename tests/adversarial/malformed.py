"""Replies that are broken or say too much, with the attacker's address where a careless reader looks."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.adversarial.packets import A, record, response

POINTER_TO_QUESTION = b"\xc0\x0c"
CNAME = 5


def _pointer(offset: int) -> bytes:
    return struct.pack("!H", 0xC000 | offset)


def _behind(question: bytes) -> int:
    """Where the answers begin."""
    return 12 + len(question)


Case = Callable[[bytes, bytes], bytes]
"""Of the question as it is in the query, and the attacker's address, the message behind its id."""


def _with_owner(owner: bytes) -> Case:
    return lambda question, packed: response(question, record(owner, A, packed))


def _to_itself(question: bytes, packed: bytes) -> bytes:
    return response(question, record(_pointer(_behind(question)), A, packed))


def _in_a_circle(question: bytes, packed: bytes) -> bytes:
    here = _behind(question)
    return response(question, record(_pointer(here + 16), A, packed), record(_pointer(here), A, packed))


def _label_in_a_circle(question: bytes, packed: bytes) -> bytes:
    return response(question, record(b"\x01x" + _pointer(_behind(question)), A, packed))


def _forward(question: bytes, packed: bytes) -> bytes:
    """The owner's name is a copy of the question's behind the record."""
    here = _behind(question)
    return response(question, record(_pointer(here + 16), A, packed)) + question[:-4]


def _alias_forward(question: bytes, packed: bytes) -> bytes:
    here = _behind(question)
    target = _pointer(here + 14)
    return response(
        question, record(POINTER_TO_QUESTION, CNAME, target), record(_pointer(here + 12), A, packed)
    )


def _alias_that_points_at_itself(question: bytes, packed: bytes) -> bytes:
    here = _behind(question) + 12
    alias = record(POINTER_TO_QUESTION, CNAME, _pointer(here))
    return response(question, alias, record(_pointer(here), A, packed))


def _many_pointers(question: bytes, packed: bytes) -> bytes:
    """A chain of pointers, each to the one before, in data that nobody looks at, and its end as the owner."""
    here = _behind(question) + 12
    chain = POINTER_TO_QUESTION + b"".join(_pointer(here + 2 * number) for number in range(199))
    owner = _pointer(here + len(chain) - 2)
    return response(question, record(POINTER_TO_QUESTION, 16, chain), record(owner, A, packed))


def _many_records(question: bytes, packed: bytes) -> bytes:
    """As many as a datagram holds, all of another name but the last."""
    others = record(b"\x01x\0", A, packed)
    return response(question, *[others] * 3400)


def _lying_count(question: bytes, packed: bytes) -> bytes:
    message = response(question, record(b"\x04evil\0", A, packed))
    return message[:4] + struct.pack("!H", 10_000) + message[6:]


def _long_data(question: bytes, packed: bytes) -> bytes:
    lie = bytearray(response(question, record(POINTER_TO_QUESTION, 16, b""), b"", record(b"\0", A, packed)))
    where = 10 + len(question) + 10  # the id is not there yet
    lie[where : where + 2] = struct.pack("!H", 65535)
    return bytes(lie)


def _short_address(question: bytes, packed: bytes) -> bytes:
    return response(question, record(POINTER_TO_QUESTION, A, packed[:3]), packed[3:])


def _long_address(question: bytes, packed: bytes) -> bytes:
    return response(question, record(POINTER_TO_QUESTION, A, packed + b"x"))


def _address_behind_the_end(question: bytes, packed: bytes) -> bytes:
    return response(question, record(POINTER_TO_QUESTION, A, packed))[:-4]


CASES: dict[str, Case] = {
    "pointer-to-itself": _to_itself,
    "pointers-in-a-circle": _in_a_circle,
    "label-and-pointer-in-a-circle": _label_in_a_circle,
    "pointer-forward": _forward,
    "pointer-past-the-end": _with_owner(b"\xff\xff"),
    "pointer-cut-off": lambda question, packed: response(question, b"\xc0"),
    "pointer-into-the-header": _with_owner(_pointer(0)),
    "alias-forward": _alias_forward,
    "alias-that-points-at-itself": _alias_that_points_at_itself,
    "reserved-label": _with_owner(b"\x80x\0"),
    "extended-label": _with_owner(b"\x41\x20" + b"x" * 4 + b"\0"),
    "name-of-256-octets": _with_owner(b"\x3f" + b"x" * 63 + (b"\x3f" + b"x" * 63) * 3 + b"\0"),
    "128-labels": _with_owner(b"\x01x" * 128 + b"\0"),
    "lying-count": _lying_count,
    "lying-data-length": _long_data,
    "short-address": _short_address,
    "long-address": _long_address,
    "address-cut-off": _address_behind_the_end,
    "many-records": _many_records,
    "owner-with-nul": lambda question, packed: response(
        question, record(question[:-5].replace(b"\x04lies", b"\x04lie\0") + b"\0", A, packed)
    ),
    "owner-with-dot": lambda question, packed: response(
        question, record(question[:-5].replace(b"\x04lies\x04test", b"\x09lies.test") + b"\0", A, packed)
    ),
    "owner-with-soh": lambda question, packed: response(
        question, record(question[:-5].replace(b"lies", b"lie\x01") + b"\0", A, packed)
    ),
}
"""By the first label of the name asked for."""

HONEST_ALL_THE_SAME: dict[str, Case] = {"chain-of-pointers": _many_pointers}
"""Strange, but every reader comes to the address."""


EVIL = b"\x03www\x04evil\x04test\0"

Aside = Callable[[bytes, bytes, bytes], bytes]
"""The same with the honest address as well, before the attacker's."""


def _own(packed: bytes) -> bytes:
    return record(POINTER_TO_QUESTION, A, packed)


def _authority(question: bytes, honest: bytes, packed: bytes) -> bytes:
    message = response(question, _own(honest)) + record(EVIL, A, packed)
    return message[:6] + struct.pack("!HH", 1, 0) + message[10:]


def _additional(question: bytes, honest: bytes, packed: bytes) -> bytes:
    message = response(question, _own(honest)) + record(EVIL, A, packed)
    return message[:6] + struct.pack("!HH", 0, 1) + message[10:]


def _child(question: bytes, honest: bytes, packed: bytes) -> bytes:
    return response(question, _own(honest), record(b"\1x" + POINTER_TO_QUESTION, A, packed))


def _parent(question: bytes, honest: bytes, packed: bytes) -> bytes:
    return response(question, _own(honest), record(_pointer(13 + question[0]), A, packed))


def _other_alias(question: bytes, honest: bytes, packed: bytes) -> bytes:
    """The alias is another name's."""
    alias = record(b"\4else" + _pointer(13 + question[0]), CNAME, EVIL)
    return response(question, _own(honest), alias, record(EVIL, A, packed))


def _alias_back(question: bytes, honest: bytes, packed: bytes) -> bytes:
    """The attacker's name is an alias of the one asked for, and not the other way round."""
    alias = record(EVIL, CNAME, POINTER_TO_QUESTION)
    return response(question, alias, record(EVIL, A, packed), _own(honest))


ASIDE: dict[str, Aside] = {
    "aside-before": lambda question, honest, packed: response(
        question, record(EVIL, A, packed), _own(honest)
    ),
    "aside-behind": lambda question, honest, packed: response(
        question, _own(honest), record(EVIL, A, packed)
    ),
    "aside-between": lambda question, honest, packed: response(
        question, _own(honest), record(EVIL, A, packed), _own(honest)
    ),
    "aside-authority": _authority,
    "aside-additional": _additional,
    "aside-root": lambda question, honest, packed: response(question, _own(honest), record(b"\0", A, packed)),
    "aside-child": _child,
    "aside-parent": _parent,
    "aside-alias": _other_alias,
    "aside-alias-back": _alias_back,
}

"""The keyed hash of bpf/lib/names.h, for filling its map.

A polynomial over character classes, evaluated in four lanes modulo 2^31 - 1 from the last byte of a name
to its first, each label followed (that is, preceded on the wire) by the class of a label start.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Sequence
from operator import mul

from ram_ebpf.dataplane.abi import CLASS_SEP, HASH_LANES, NAME_MAX
from ram_ebpf.policy.classes import class_table

PRIME = 2**31 - 1

_LANE = 64  # bits: a label's sum is one of at most 64 products of 8 bits and 31, so nothing is carried over
_LANE_MASK = 2**_LANE - 1
_MOST_PARENTS = 4096
_START = bytes((CLASS_SEP + 1,))


def draw_multipliers() -> tuple[int, ...]:
    """A fresh secret: one multiplier a lane, in 2 .. PRIME - 1."""
    return tuple(secrets.randbelow(PRIME - 2) + 2 for _ in range(HASH_LANES))


class NameHasher:
    """Hashes literal suffixes under one secret. Keeps what parents gave, as rules share their domains."""

    def __init__(self, multipliers: Sequence[int]) -> None:
        self._symbols = bytes(symbol + 1 for symbol in class_table())
        self._powers = [tuple(pow(k, n, PRIME) for k in multipliers) for n in range(NAME_MAX + 1)]
        # All lanes of a power in one number, so that one multiplication serves all.
        self._joined = [
            sum(power << lane * _LANE for lane, power in enumerate(powers)) for powers in self._powers
        ]
        self._parents: dict[tuple[str, ...], tuple[int, ...]] = {}

    def _lanes(self, labels: tuple[str, ...]) -> tuple[int, ...]:
        if not labels:
            return (0,) * HASH_LANES
        parent = self._parents.get(labels[1:])
        if parent is None:
            if len(self._parents) >= _MOST_PARENTS:
                self._parents.clear()
            parent = self._parents[labels[1:]] = self._lanes(labels[1:])
        # In the order of reading: the label backwards, then its start.
        symbols = labels[0].encode("ascii").translate(self._symbols)[::-1] + _START
        count = len(symbols)
        total = sum(map(mul, symbols, self._joined[count - 1 :: -1]))
        first, second, third, fourth = self._powers[count]
        # Written out, as a loop takes twice as long. A sum that is 0 modulo the prime is folded to the prime
        # itself in the kernel, never to 0.
        return (
            (parent[0] * first + (total & _LANE_MASK)) % PRIME or PRIME,
            (parent[1] * second + (total >> _LANE & _LANE_MASK)) % PRIME or PRIME,
            (parent[2] * third + (total >> 2 * _LANE & _LANE_MASK)) % PRIME or PRIME,
            (parent[3] * fourth + (total >> 3 * _LANE)) % PRIME or PRIME,
        )

    def key(self, labels: Sequence[str]) -> bytes:
        """struct ram_suffix_key of a literal suffix, given as labels from left to right (A-labels)."""
        return struct.pack("=4I", *self._lanes(tuple(labels)))

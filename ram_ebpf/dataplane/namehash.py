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


def draw_multipliers() -> tuple[int, ...]:
    """A fresh secret: one multiplier a lane, in 2 .. PRIME - 1."""
    return tuple(secrets.randbelow(PRIME - 2) + 2 for _ in range(HASH_LANES))


class NameHasher:
    """Hashes literal suffixes under one secret. Keeps what parents gave, as rules share their domains."""

    def __init__(self, multipliers: Sequence[int]) -> None:
        self._symbols = bytes(symbol + 1 for symbol in class_table())
        self._powers = [[pow(k, n, PRIME) for n in range(NAME_MAX + 1)] for k in multipliers]
        self._known: dict[tuple[str, ...], tuple[int, ...]] = {(): (0,) * HASH_LANES}

    def _lanes(self, labels: tuple[str, ...]) -> tuple[int, ...]:
        known = self._known.get(labels)
        if known is not None:
            return known
        parent = self._lanes(labels[1:])
        # In the order of reading: the label backwards, then its start.
        symbols = labels[0].encode("ascii").translate(self._symbols)[::-1] + bytes((CLASS_SEP + 1,))
        count = len(symbols)
        # A sum that is 0 modulo the prime is folded to the prime itself in the kernel, never to 0.
        lanes = tuple(
            (before * powers[count] + sum(map(mul, symbols, powers[count - 1 :: -1]))) % PRIME or PRIME
            for before, powers in zip(parent, self._powers, strict=True)
        )
        if len(labels) < 4:
            self._known[labels] = lanes
        return lanes

    def key(self, labels: Sequence[str]) -> bytes:
        """struct ram_suffix_key of a literal suffix, given as labels from left to right (A-labels)."""
        return struct.pack("=4I", *self._lanes(tuple(labels)))

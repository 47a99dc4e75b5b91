"""Character classes of host names: the alphabet that the glob automaton reads.

The kernel side reads the same classes from `class_table()`, so that a byte of a DNS name (RFC 1035,
section 3.1) costs one table look-up there and letter case (RFC 4343) is folded by the same look-up.
"""

from __future__ import annotations

OTHER = 0  # never valid in a host name: every automaton goes to its dead state
LETTER_A = 1  # 1..26: a-z and A-Z
DIGIT_0 = 27  # 27..36: 0-9
HYPHEN = 37
UNDERSCORE = 38  # not of RFC 952, but common in names that providers generate
SEP = 39  # the start of a label, where a length octet stands on the wire; no byte has this class
CLASS_COUNT = 40

NAME_CLASSES = range(LETTER_A, SEP)
"""The classes of characters that a label may contain."""


def class_of(byte: int) -> int:
    """The class of one octet (0..255) of a label."""
    if 0x61 <= byte <= 0x7A:
        return LETTER_A + byte - 0x61
    if 0x41 <= byte <= 0x5A:
        return LETTER_A + byte - 0x41
    if 0x30 <= byte <= 0x39:
        return DIGIT_0 + byte - 0x30
    if byte == 0x2D:
        return HYPHEN
    if byte == 0x5F:
        return UNDERSCORE
    return OTHER


def class_table() -> bytes:
    """256 octets: octet of a label -> its class. No octet maps to SEP."""
    return bytes(class_of(byte) for byte in range(256))

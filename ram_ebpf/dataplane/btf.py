"""The smallest BPF type information that socket storage maps ask for (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct

KEY_TYPE_ID = 1
VALUE_TYPE_ID = 2
_KIND_INT = 1 << 24
_KIND_STRUCT = 4 << 24


def key_and_value(value_size: int) -> bytes:
    """Types 1 (a 32-bit int) and 2 (a structure of `value_size` bytes without members)."""
    strings = b"\0int\0"
    types = struct.pack("=IIII", 1, _KIND_INT, 4, 1 << 24 | 32) + struct.pack(
        "=III", 0, _KIND_STRUCT, value_size
    )
    header = struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    return header + types + strings

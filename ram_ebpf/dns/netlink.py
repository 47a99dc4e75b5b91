"""Reading what the kernel answers over netlink (netlink(7)), as far as the daemon asks again and again.

pyroute2 is for what is asked of devices: it takes 20 MB as soon as it is imported.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

# include/uapi/linux/netlink.h
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 1
NLM_F_DUMP = 0x300
_NLA_TYPE_MASK = 0x3FFF
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")


def malformed(what: str) -> OSError:
    """An answer that cannot be read."""
    return OSError(errno.EBADMSG, f"netlink: malformed {what}")


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message. Raises OSError (EBADMSG)."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < HEADER.size:
            raise malformed("message")
        length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
        if not HEADER.size <= length <= len(data) - offset:
            raise malformed("message")
        yield kind, sequence, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    """Those of a body, by type, from an offset on. Raises OSError (EBADMSG)."""
    found = {}
    while offset < len(body):
        if len(body) - offset < _ATTRIBUTE.size:
            raise malformed("attribute")
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if not _ATTRIBUTE.size <= length <= len(body) - offset:
            raise malformed("attribute")
        found[kind & _NLA_TYPE_MASK] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found

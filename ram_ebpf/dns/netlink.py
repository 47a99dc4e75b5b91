"""Reading what the kernel answers over netlink (netlink(7)), as far as the daemon asks again and again.

pyroute2 is for what is asked of devices: it takes 20 MB as soon as it is imported.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

# include/uapi/linux/netlink.h
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_NLA_TYPE_MASK = 0x3FFF
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_BUFFER = 65536  # a dump comes in pieces of 32 KiB at most (netlink_dump() in net/netlink/af_netlink.c)
_PATIENCE = 2.0  # seconds that the kernel may take for one piece


def malformed(what: str) -> OSError:
    """An answer that cannot be read."""
    return OSError(errno.EBADMSG, f"netlink: malformed {what}")


def connected(protocol: int) -> socket.socket:
    """A socket that speaks with the kernel by one of netlink(7)'s protocols. Raises OSError."""
    item = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        item.settimeout(_PATIENCE)
        item.connect((0, 0))  # to the kernel: nobody else can put messages into our buffer then
    except BaseException:
        item.close()
        raise
    return item


class Watch:
    """A descriptor that is readable when something has changed in this network namespace (rtnetlink(7))."""

    def __init__(self, groups: int) -> None:
        """`groups`: those of RTMGRP_* of include/uapi/linux/rtnetlink.h. Raises OSError."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        try:
            self._socket.bind((0, groups))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def has_news(self) -> bool:
        """Whether there was something since the last call. What it was is looked up."""
        news = False
        while True:
            try:
                self._socket.recv(_BUFFER)
            except BlockingIOError:
                return news
            except OSError:  # ENOBUFS: so much that some of it was lost
                pass
            news = True

    def close(self) -> None:
        """Stops watching."""
        self._socket.close()


def request(kind: int, body: bytes, sequence: int) -> bytes:
    """The message that asks for all of a kind."""
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, _NLM_F_REQUEST | _NLM_F_DUMP, sequence, 0) + body


def pieces(item: socket.socket, wanted: bytes) -> Iterator[bytes]:
    """Asks, and gives what comes, as long as the caller wants more. Raises OSError."""
    item.send(wanted)
    while True:
        yield item.recv(_BUFFER)


def parse(data: bytes, sequence: int, what: str) -> tuple[list[tuple[int, bytes]], bool]:
    """One piece of an answer: types and bodies of its messages, and whether it was the last.

    `what`: the protocol, for errors. Raises OSError: the kernel's, and EBADMSG.
    """
    found: list[tuple[int, bytes]] = []
    for kind, number, body in _messages(data):
        if number != sequence:
            continue
        if kind in (_NLMSG_ERROR, _NLMSG_DONE):
            # A dump that fails on its way says so in its end.
            error = -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else 0
            if error:
                raise OSError(error, f"{what}: {os.strerror(error)}")
            return found, True
        found.append((kind, body))
    return found, False


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, sequence number and body of each message. Raises OSError (EBADMSG)."""
    offset = 0
    while offset < len(data):
        if len(data) - offset < _HEADER.size:
            raise malformed("message")
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            raise malformed("message")
        yield kind, sequence, data[offset + _HEADER.size : offset + length]
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

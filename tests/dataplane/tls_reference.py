"""What a connection's first bytes say, by a second implementation: the whole at once, from the inside of its
records (RFC 8446 5.1, 4.1.2; RFC 6066 3), instead of in steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MOST = 4096
_HANDSHAKE, _CLIENT_HELLO = 22, 1


class MoreNeededError(Exception):
    """The bytes are the beginning of something that may be right."""


class StrangeError(Exception):
    """They are not, whatever may follow."""


@dataclass
class _Content:
    """What is in the records. `ends`: where in it each record ends that has begun."""

    data: bytes
    ends: list[int]
    broken: bool  # no record begins where the last one ends


def _records(stream: bytes) -> _Content:
    content = bytearray()
    ends: list[int] = []
    at = 0
    while at < len(stream):
        header = stream[at : at + 5]
        if header[0] != _HANDSHAKE:
            return _Content(bytes(content), ends, True)
        if len(header) < 5:
            break
        length = int.from_bytes(header[3:], "big")
        if header[1] != 3 or not 1 <= length <= 16384:
            return _Content(bytes(content), ends, True)
        content += stream[at + 5 : at + 5 + length]
        ends.append((ends[-1] if ends else 0) + length)
        at += 5 + length
    return _Content(bytes(content), ends, False)


class _Reader:
    def __init__(self, content: _Content) -> None:
        self.content, self.at, self.end = content, 0, 2**32

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int, then: int = 0) -> bytes:
        """So many bytes, which must be there. They, and what is needed `then`, must lie in the message."""
        if self.at + size + then > self.end:
            raise StrangeError
        piece = self.content.data[self.at : self.at + size]
        if len(piece) < size:
            raise StrangeError if self.content.broken else MoreNeededError
        self.at += size
        return piece


def server_names(stream: bytes) -> Iterator[bytes]:
    """The name in each server_name, as far as the bytes go. Ends where the last extension begins.

    Raises MoreNeededError or StrangeError where it cannot be read on.
    """
    stream = stream[:MOST]
    try:
        yield from _server_names(_Reader(_records(stream)))
    except MoreNeededError:
        if len(stream) == MOST:
            raise StrangeError from None
        raise


def _server_names(reader: _Reader) -> Iterator[bytes]:
    head = reader.take(4)
    if head[0] != _CLIENT_HELLO:
        raise StrangeError
    reader.end = reader.at + int.from_bytes(head[1:], "big")
    if reader.number(2) >> 8 != 3:
        raise StrangeError
    reader.take(32, then=1)
    session = reader.number(1)
    if session > 32:
        raise StrangeError
    reader.take(session, then=2)
    reader.take(reader.number(2), then=1)
    compressions = reader.number(1)
    if reader.at + compressions == reader.end:
        return
    reader.take(compressions, then=2)
    if reader.number(2) != reader.end - reader.at:
        raise StrangeError
    while reader.at < reader.end:
        reader.take(0, then=4)
        kind, size = reader.number(2), reader.number(2)
        if kind == 0:
            yield _host_name(reader, size)
        elif reader.at + size == reader.end:
            return
        else:
            reader.take(size, then=4)


def _host_name(reader: _Reader, size: int) -> bytes:
    reader.take(0, then=5)
    in_list, kind, length = reader.number(2), reader.number(1), reader.number(2)
    if kind != 0 or size != length + 5 or in_list != length + 3 or not 1 <= length <= 253:
        raise StrangeError
    if reader.at + length > reader.end:
        raise StrangeError
    # Not over two records.
    if any(reader.at <= end < reader.at + length for end in reader.content.ends):
        raise StrangeError
    return reader.take(length)

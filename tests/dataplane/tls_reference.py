"""What a connection's first bytes say, by a second implementation: the whole at once, from the inside of its
records (RFC 8446 5.1, 4.1.2; RFC 6066 3), instead of in steps."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

MOST = 4096
_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA = 20, 21, 22, 23
_CLIENT_HELLO = 1
_SERVER_NAME, _EARLY_DATA, _SUPPORTED_VERSIONS = 0, 42, 43


class MoreNeededError(Exception):
    """The bytes are the beginning of something that may be right."""


class StrangeError(Exception):
    """They are not, whatever may follow."""


class NoNameError(StrangeError):
    """A ClientHello says no name."""


@dataclass(frozen=True)
class _Between:
    """A record of another type than the handshake's."""

    kind: int
    is_right: bool
    is_whole: bool


@dataclass
class _Content:
    """What is in the handshake's records."""

    data: bytes
    ends: list[int]  # where in it each record ends that has begun
    others: dict[int, list[_Between]]  # by where in it they are
    broken: bool  # no record begins where the last one ends


def _records(stream: bytes) -> _Content:
    content = bytearray()
    found = _Content(b"", [], {}, False)
    at = 0
    while at < len(stream):
        header = stream[at : at + 5]
        length = int.from_bytes(header[3:], "big")
        is_right = len(header) < 5 or (header[1] == 3 and 1 <= length <= 16384)
        if header[0] != _HANDSHAKE:
            is_whole = len(header) == 5 and at + 5 + length <= len(stream)
            there = found.others.setdefault(found.ends[-1] if found.ends else 0, [])
            there.append(_Between(header[0], is_right, is_whole))
            if not (is_right and is_whole):
                break
        elif len(header) < 5:
            break
        elif not is_right:
            found.broken = True
            break
        else:
            content += stream[at + 5 : at + 5 + length]
            found.ends.append((found.ends[-1] if found.ends else 0) + length)
        at += 5 + length
    found.data = bytes(content)
    return found


class _Reader:
    def __init__(self, content: _Content) -> None:
        self.content, self.at, self.end = content, 0, 2**32
        self.passed = -1  # other records up to there in the handshake's content are right where they are

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int, then: int = 0) -> bytes:
        """So many bytes, which must be there. They, and what is needed `then`, must lie in the message."""
        if self.at + size + then > self.end:
            raise StrangeError
        there = min(self.at + size - 1, len(self.content.data))
        if size and any(self.passed < place <= there for place in self.content.others):
            raise StrangeError
        piece = self.content.data[self.at : self.at + size]
        if len(piece) < size:
            raise StrangeError if self.content.broken else MoreNeededError
        self.at += size
        return piece

    def another_follows(self) -> bool:
        """Whether something behind a ClientHello is of the handshake too."""
        for between in self.content.others.get(self.at, []):
            if between.kind == _APPLICATION_DATA:
                return False
            if between.kind not in (_CHANGE_CIPHER_SPEC, _ALERT) or not between.is_right:
                raise StrangeError
            if not between.is_whole:
                raise MoreNeededError
        self.passed = self.at
        self.end = 2**32
        return (
            self.at < len(self.content.data) or self.content.broken or self.at not in (*self.content.ends, 0)
        )


def server_names(stream: bytes) -> Iterator[bytes]:
    """The name in each server_name, as far as the bytes go. Ends where the last extension begins that nothing
    can follow, or behind a ClientHello.

    Raises MoreNeededError or StrangeError where it cannot be read on, NoNameError behind a ClientHello that
    has none.
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
    may_follow = yield from _of_hello(reader, head)
    while may_follow and reader.another_follows():
        head = reader.take(4)
        if head[0] != _CLIENT_HELLO or head[1] > 2:
            return
        may_follow = yield from _of_hello(reader, head)


def _of_hello(reader: _Reader, head: bytes) -> Generator[bytes, None, bool]:
    """Names; at its end, whether another ClientHello may follow."""
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
        raise NoNameError
    reader.take(compressions, then=2)
    if reader.number(2) != reader.end - reader.at:
        raise StrangeError
    kinds: set[int] = set()
    while reader.at < reader.end:
        reader.take(0, then=4)
        kind, size = reader.number(2), reader.number(2)
        kinds.add(kind)
        if kind == _SERVER_NAME:
            name = _host_name(reader, size)
            if _EARLY_DATA in kinds:
                raise StrangeError
            yield name
        elif reader.at + size == reader.end:
            break
        else:
            reader.take(size, then=4)
    if _SERVER_NAME not in kinds:
        raise NoNameError
    if _SUPPORTED_VERSIONS in kinds:
        reader.take(reader.end - reader.at)
    if _EARLY_DATA in kinds:
        raise StrangeError
    return _SUPPORTED_VERSIONS in kinds


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

"""Every name that any server could read in a connection's first bytes, however tolerant it is.

What some server or other accepts, and more: records of other types and of no bytes in between, messages in
front, lengths that do not fit each other, a name twice, several in one list, names of any type.
"""

from __future__ import annotations

from collections.abc import Iterator

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME = 22, 1, 0


def names(stream: bytes) -> set[bytes] | None:
    """None: there is no ClientHello to its end, so nobody could answer yet."""
    for kind, body in _messages(_handshake(stream)):
        if kind == _CLIENT_HELLO:
            return set(_names(body))
    return None


def _handshake(stream: bytes) -> bytes:
    """What is in the handshake's records."""
    content = b""
    while len(stream) >= 5:
        size = int.from_bytes(stream[3:5], "big")
        if stream[0] == _HANDSHAKE:
            content += stream[5 : 5 + size]
        stream = stream[5 + size :]
    return content


def _messages(content: bytes) -> Iterator[tuple[int, bytes]]:
    while len(content) >= 4:
        size = int.from_bytes(content[1:4], "big")
        if len(content) < 4 + size:
            return
        yield content[0], content[4 : 4 + size]
        content = content[4 + size :]


def _names(body: bytes) -> Iterator[bytes]:
    at = 34
    for size in (1, 2, 1):
        at += size + int.from_bytes(body[at : at + size], "big")
    extensions = body[at + 2 :]  # whatever their length says
    while len(extensions) >= 4:
        kind, size = int.from_bytes(extensions[:2], "big"), int.from_bytes(extensions[2:4], "big")
        if kind == _SERVER_NAME:
            # As far as the extension goes, and as far as the list says.
            yield from _in_list(extensions[6 : 4 + size])
            yield from _in_list(extensions[6 : 6 + int.from_bytes(extensions[4:6], "big")])
        extensions = extensions[4 + size :]


def _in_list(content: bytes) -> Iterator[bytes]:
    while len(content) >= 3:
        size = int.from_bytes(content[1:3], "big")
        yield content[3 : 3 + size]
        content = content[3 + size :]

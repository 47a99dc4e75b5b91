"""The ClientHello of TLS 1.0 to 1.3, read as far as the name that it asks for.

RFC 8446 section 5.1 (records), 4 (handshake messages) and 4.1.2 (ClientHello), RFC 6066 section 3
(server_name). Written by strangers: every length is checked against what is there, and nothing longer than
MOST_BYTES is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_BYTES = 65536
"""Of the records that hold it. With several post-quantum key shares it is below 4 KiB."""

_RECORD_HEADER = 5
_LONGEST_FRAGMENT = 16384  # RFC 8446 5.1
_HANDSHAKE = 22
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0


class ClientHelloError(ValueError):
    """The bytes are no ClientHello."""


@dataclass(frozen=True)
class ClientHello:
    """`server_name`: as it was sent, ASCII and at most 255 characters; None where none was."""

    server_name: str | None


class _Bytes:
    """Reads from the left, and never past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __len__(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > len(self):
            raise ClientHelloError(f"{count} bytes are announced where {len(self)} are left")
        self._at += count
        return self._data[self._at - count : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Bytes:
        """What stands behind its own length of `size` bytes (RFC 8446 3.4)."""
        return _Bytes(self.take(self.number(size)))


def looks_like_tls(first: int) -> bool:
    """Whether a connection that begins with this byte is one of TLS: no method of HTTP begins so."""
    return first == _HANDSHAKE


class ClientHelloReader:
    """Takes the bytes of a connection as they come, and looks at each of them once."""

    def __init__(self) -> None:
        self._taken = 0
        self._header = bytearray()
        self._left = 0  # of the record that is being read
        self._message = bytearray()

    def take(self, data: bytes) -> ClientHello | None:
        """What the first bytes of the connection say; None when it takes more of them to know.

        Raises ClientHelloError for what is none, or too long.
        """
        self._taken += len(data)
        at = 0
        while at < len(data):
            if self._left:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                self._message += part
                if self._is_complete():
                    return ClientHello(_server_name(_Bytes(bytes(self._message[4:]))))
            else:
                self._header.append(data[at])
                at += 1
                self._read_header()
        if self._taken >= MOST_BYTES:
            raise ClientHelloError(f"longer than {MOST_BYTES} bytes")
        return None

    def _read_header(self) -> None:
        header = self._header
        if header[0] != _HANDSHAKE or (len(header) > 1 and header[1] != 3):
            raise ClientHelloError("not a handshake record of TLS")
        if len(header) < _RECORD_HEADER:
            return
        self._left = int.from_bytes(header[3:5], "big")
        if not 0 < self._left <= _LONGEST_FRAGMENT:
            raise ClientHelloError(f"a record of {self._left} bytes")
        header.clear()

    def _is_complete(self) -> bool:
        message = self._message
        if message[0] != _CLIENT_HELLO:
            raise ClientHelloError(f"handshake message {message[0]} is no ClientHello")
        if len(message) < 4:
            return False
        end = 4 + int.from_bytes(message[1:4], "big")
        if end > MOST_BYTES:
            raise ClientHelloError(f"longer than {MOST_BYTES} bytes")
        if len(message) < end:
            return False
        del message[end:]  # whatever comes behind it is the handshake's
        return True


def read_client_hello(data: bytes) -> ClientHello | None:
    """The same of bytes that are all there is."""
    return ClientHelloReader().take(data)


def _server_name(body: _Bytes) -> str | None:
    body.take(2)  # legacy_version
    body.take(32)  # random
    body.vector(1)  # legacy_session_id
    if len(body.vector(2)) < 2:
        raise ClientHelloError("no cipher suites")
    if not len(body.vector(1)):
        raise ClientHelloError("no compression methods")
    if not len(body):  # TLS 1.2 and older may have no extensions (RFC 5246 7.4.1.2)
        return None
    extensions = body.vector(2)
    if len(body):
        raise ClientHelloError("something behind the extensions")
    name, seen = None, set()
    while len(extensions):
        kind, content = extensions.number(2), extensions.vector(2)
        if kind in seen:
            raise ClientHelloError(f"extension {kind} is there twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _host_name(content)
    return name


def _host_name(content: _Bytes) -> str | None:
    names = content.vector(2)
    if len(content) or not len(names):
        raise ClientHelloError("the list of server names is empty, or something is behind it")
    found = None
    while len(names):
        kind, value = names.number(1), names.vector(2)
        if kind != _HOST_NAME:
            raise ClientHelloError(f"a server name of type {kind}")
        if found is not None:
            raise ClientHelloError("two host names")
        if not 0 < len(value) <= 255:
            raise ClientHelloError(f"a host name of {len(value)} bytes")
        raw = value.take(len(value))
        if not raw.isascii() or not raw.decode("ascii").isprintable():
            raise ClientHelloError("a host name that is not ASCII")
        found = raw.decode("ascii")
    return found

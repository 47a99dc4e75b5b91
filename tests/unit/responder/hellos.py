"""ClientHello messages: those of a real client, and ones made by hand."""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import Sequence


def of_openssl(name: str | None, alpn: Sequence[str] = ()) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def vector(size: int, content: bytes) -> bytes:
    """Behind its length."""
    return len(content).to_bytes(size, "big") + content


def extension(kind: int, content: bytes) -> bytes:
    """RFC 8446 4.2."""
    return struct.pack("!H", kind) + vector(2, content)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    """RFC 6066 3."""
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def body(
    extensions: bytes | None,
    session: bytes = b"",
    suites: bytes = b"\x13\x01",
    compression: bytes = b"\0",
) -> bytes:
    """RFC 8446 4.1.2; None: without extensions."""
    text = b"\x03\x03" + bytes(32) + vector(1, session) + vector(2, suites) + vector(1, compression)
    return text if extensions is None else text + vector(2, extensions)


def message(content: bytes, kind: int = 1) -> bytes:
    """A handshake message (RFC 8446 4)."""
    return bytes([kind]) + vector(3, content)


def records(handshake: bytes, size: int = 16384, kind: int = 22, version: bytes = b"\x03\x01") -> bytes:
    """In records of at most so many bytes (RFC 8446 5.1)."""
    return b"".join(
        bytes([kind]) + version + vector(2, handshake[at : at + size])
        for at in range(0, len(handshake), size)
    )

"""TLS over bytes in memory, with certificates from memory: what the standard library's ssl module reads from
files alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import OpenSSL
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

ACCESS_DENIED = bytes((21, 3, 3, 0, 2, 2, 49))
"""A fatal alert access_denied (RFC 8446 6.2), as a record of its own."""

_CHUNK = 16384
# From 24.3 on pyOpenSSL takes the objects of cryptography, and warns of its own.
_OWN_OBJECTS = tuple(int(part) for part in OpenSSL.__version__.split(".")[:2]) < (24, 3)


class TlsError(RuntimeError):
    """The client broke off, or does not speak TLS as it should."""


def context(chain: Sequence[bytes], key_pem: bytes) -> SSL.Context:
    """For a server with these DER certificates, its own first."""
    made = SSL.Context(SSL.TLS_SERVER_METHOD)
    made.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    made.set_options(SSL.OP_NO_TICKET)
    own, *others = [_certificate(item) for item in chain]
    made.use_certificate(own)
    for item in others:
        made.add_extra_chain_cert(item)
    made.use_privatekey(_key(key_pem))
    return made


def _certificate(der: bytes) -> Any:
    return (
        crypto.load_certificate(crypto.FILETYPE_ASN1, der)
        if _OWN_OBJECTS
        else x509.load_der_x509_certificate(der)
    )


def _key(pem: bytes) -> Any:
    return (
        crypto.load_privatekey(crypto.FILETYPE_PEM, pem) if _OWN_OBJECTS else load_pem_private_key(pem, None)
    )


class Tls:
    """The server's end of one connection. No ALPN is agreed on, so clients speak HTTP/1.1."""

    def __init__(self, its_context: SSL.Context) -> None:
        self._connection = SSL.Connection(its_context, None)
        self._connection.set_accept_state()
        self._shaken = False

    def outgoing(self) -> bytes:
        """What is to be sent to the client now."""
        found = b""
        while True:
            try:
                found += self._connection.bio_read(_CHUNK)
            except SSL.WantReadError:
                return found

    def take(self, data: bytes) -> bytes:
        """What the client has sent, in clear text; nothing as long as the handshake goes on.

        Raises TlsError; what is `outgoing` then is still to be sent.
        """
        try:
            self._connection.bio_write(data)
            if not self._shaken:
                self._connection.do_handshake()
                self._shaken = True
            return self._read()
        except SSL.WantReadError:
            return b""
        except SSL.Error as error:
            raise TlsError(str(error)) from error

    def _read(self) -> bytes:
        found = b""
        while True:
            try:
                found += self._connection.recv(_CHUNK)
            except SSL.WantReadError:
                return found
            except SSL.ZeroReturnError as error:
                if found:
                    return found
                raise TlsError("closed") from error

    def send(self, data: bytes) -> None:
        """Clear text for the client, with what is `outgoing` then. Raises TlsError."""
        try:
            self._connection.sendall(data)
        except SSL.Error as error:
            raise TlsError(str(error)) from error

    def close(self) -> None:
        """Says goodbye (close_notify), as far as that is possible."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return

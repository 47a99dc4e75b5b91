"""Servers on the loopback interface that answer whatever a test wants."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

Handler = Callable[[socket.socket], None]
LOOPBACK = ipaddress.ip_address("127.0.0.1")
_PATIENCE = 10.0


@cache
def server_context() -> ssl.SSLContext:
    """TLS by a certificate that nobody has signed whom anybody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate = trustme.CA().issue_cert("somebody.else.example")
    with TemporaryDirectory() as directory:
        path = Path(directory, "server.pem")
        certificate.private_key_and_cert_chain_pem.write_to_path(path)
        context.load_cert_chain(path)
    return context


class Server:
    """One on a port that is free. `requests` are the first lines and headers that it was sent."""

    def __init__(self, handler: Handler, tls: bool = False, address: str = "127.0.0.1") -> None:
        self._handler = handler
        self._tls = tls
        self.address = ipaddress.ip_address(address)
        self.requests: list[str] = []
        self.server_names: list[str | None] = []
        self.connections = 0
        self._stopping = threading.Event()
        family = socket.AF_INET if self.address.version == 4 else socket.AF_INET6
        self._listener = socket.socket(family)
        self._listener.bind((address, 0))
        self._listener.listen(16)
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._others: list[threading.Thread] = []

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(_PATIENCE)
        self._listener.close()
        for thread in self._others:
            thread.join(_PATIENCE)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._talk, args=(connection,), daemon=True)
            self._others.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            connection.settimeout(_PATIENCE)
            if self._tls:
                connection = stack.enter_context(self._wrapped(connection))
            self.requests.append(_request(connection))
            self._handler(connection)

    def _wrapped(self, connection: socket.socket) -> ssl.SSLSocket:
        context = server_context()

        def note(_: ssl.SSLSocket, name: str | None, __: ssl.SSLContext) -> None:
            self.server_names.append(name)

        context.sni_callback = note  # type: ignore[assignment]
        return context.wrap_socket(connection, server_side=True)

    def until_stopped(self, each: Callable[[], None], pause: float = 0.0) -> None:
        """Goes on until the other side is gone, or the test is over."""
        while not self._stopping.is_set():
            each()
            time.sleep(pause)


def _request(connection: socket.socket) -> str:
    text = b""
    while b"\r\n\r\n" not in text and not text.startswith(b"\x16"):
        more = connection.recv(4096)
        if not more:
            raise OSError("nobody asks")
        text += more
    if text.startswith(b"\x16"):
        raise OSError("TLS, which this server does not understand")
    return text.decode("ascii", "replace")


def answers(status: str, body: bytes = b"", *headers: str) -> Handler:
    """Says one thing, whatever it is asked."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return lambda connection: connection.sendall("\r\n".join(lines).encode() + body)


REGISTRY = answers(
    "401 Unauthorized",
    b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
    "Docker-Distribution-Api-Version: registry/2.0",
    'WWW-Authenticate: Bearer realm="https://auth.example/token"',
)
WEBSITE = answers("200 OK", b"<html>hello</html>", "Content-Type: text/html")


def closed_port() -> int:
    """One on which nobody listens."""
    with socket.socket() as item:
        item.bind(("127.0.0.1", 0))
        return int(item.getsockname()[1])

"""HTTP for few clients on this host: none may take more than some time, and all no more than some threads.

Each connection has a thread and carries one request, so none waits for another, and what enforces in the
kernel waits for none of them.
"""

from __future__ import annotations

import http.server
import io
import logging
import socket
import socketserver
import threading
import time
from typing import Any

_LOOKING = 0.1  # seconds between looks at whether it is to end
_log = logging.getLogger(__name__)


class BoundedThreads(socketserver.ThreadingMixIn):
    """Mixed into a server of socketserver: so many connections at a time; those beyond wait.

    Each of the others has a bounded time, so the wait is one too.
    """

    daemon_threads = True
    block_on_close = False
    most_connections = 64
    pause = 0.0
    """Seconds between two connections, at least: how much of this process strangers can take."""

    def begin(self, name: str) -> None:
        """Serves in a thread of this name, until shutdown()."""
        self._free = threading.BoundedSemaphore(self.most_connections)
        self._ending = threading.Event()
        threading.Thread(target=self.serve_forever, args=(_LOOKING,), name=name, daemon=True).start()  # type: ignore[attr-defined]

    def shutdown(self) -> None:
        """Ends it, however many wait: within moments."""
        self._ending.set()
        super().shutdown()  # type: ignore[misc]

    def process_request(self, request: Any, client_address: Any) -> None:
        while not self._free.acquire(timeout=_LOOKING):
            if self._ending.is_set():
                self.shutdown_request(request)  # type: ignore[attr-defined]
                return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise
        self._ending.wait(self.pause)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever it was is told nothing, and the log nothing of strangers."""
        _log.debug("a request ended early", exc_info=True)


class _InTime(io.RawIOBase):
    """Reads from a socket until a time, however the other side parts what it sends."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def patience(self) -> float:
        """Seconds to say what is wanted, and again to take the answer."""
        return 10.0

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_InTime(self.connection, time.monotonic() + self.patience()))
        self.connection.settimeout(self.patience())

    def reply(self, status: int, media_type: str, body: bytes) -> None:
        """The whole answer, and the end of the connection: to open one costs little, to keep one a thread."""
        self.connection.settimeout(self.patience())  # and not what was left to read
        self.send_response_only(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
        """What matters is told by whoever decides."""

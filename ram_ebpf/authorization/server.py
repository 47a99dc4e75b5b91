"""The plugin's socket, which Docker Engine finds by where it is, and which only root may open.

https://docs.docker.com/engine/extend/plugin_api/: HTTP over a Unix socket, POST alone, named by the plugin.
Each connection has a thread and carries one request, so none waits for another, and what enforces in the
kernel waits for none of them.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import logging
import os
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ram_ebpf.authorization.messages import ACTIVATION

# RAM_EBPF_DOCKER_PLUGINS moves it, for hosts whose /run is not ours to write and for tests.
DIRECTORY = Path(os.environ.get("RAM_EBPF_DOCKER_PLUGINS") or "/run/docker/plugins")
NAME = "ram-ebpf"

MAX_MESSAGE = 8 << 20
"""Bytes. A body of 1 MiB in base64 and a megabyte of headers, of which JSON makes more, fit."""
MAX_CONNECTIONS = 64
_PATIENCE = 10.0  # seconds for a whole connection
_BACKLOG = 128
_LOOKING = 0.1  # seconds between looks at whether it is to end
_MEDIA_TYPE = "application/vnd.docker.plugins.v1.1+json"
_log = logging.getLogger(__name__)

Answer = Callable[[bytes, int], bytes]
"""Of the body of AuthZPlugin.AuthZReq and the engine's process, 0 where that is not seen from here."""


class PluginServer:
    """Serves until it is closed."""

    def __init__(self, answer: Answer, directory: Path = DIRECTORY) -> None:
        """Raises OSError where the socket cannot be made; FileExistsError: another instance serves it."""
        self.path = directory / f"{NAME}.sock"
        # Docker's own place, which it would have made for root alone.
        for place in (directory.parent, directory):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_served(self.path):
            raise FileExistsError(f"another instance serves {self.path}")
        # Made aside and moved there whole: an engine that looks finds a socket that only root may open, and
        # that somebody listens at.
        new = directory / f".{NAME}.{os.getpid()}"
        new.unlink(missing_ok=True)
        self._server = _Server(str(new), answer)
        try:
            new.chmod(0o600)
            new.replace(self.path)
        except OSError:
            self._server.server_close()
            new.unlink(missing_ok=True)
            raise
        self._inode = self.path.stat().st_ino
        serve = threading.Thread(
            target=self._server.serve_forever, args=(_LOOKING,), name="docker-plugin", daemon=True
        )
        serve.start()

    def close(self) -> None:
        """Ends it. An engine that is told to ask this plugin does nothing from then on."""
        self._server.shutdown()
        self._server.server_close()
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _BACKLOG

    def __init__(self, path: str, answer: Answer) -> None:
        self.answer = answer
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(path, _Handler)

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        # Those beyond wait to be accepted; each of the others has a bounded time.
        self._free.acquire()
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("a request to the authorization plugin ended early", exc_info=True)


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


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request of an engine."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_InTime(self.connection, time.monotonic() + _PATIENCE))
        self.connection.settimeout(_PATIENCE)

    def handle(self) -> None:
        pid, uid = _peer(self.connection)
        if uid not in (0, os.geteuid()):
            return
        self._pid = pid
        super().handle()

    def do_POST(self) -> None:
        """As the plugin API names its methods."""
        body = self._read()
        if body is None:
            return
        if self.path == "/Plugin.Activate":
            self._send(200, ACTIVATION)
        elif self.path == "/AuthZPlugin.AuthZReq":
            self._send(200, self.server.answer(body, self._pid))
        elif self.path == "/AuthZPlugin.AuthZRes":
            self._send(200, b'{"Allow": true}')  # what was done is not undone by hiding it
        else:
            self._send(404, b'{"Err": "no such method: Plugin.Activate, AuthZPlugin.AuthZReq or AuthZRes"}')

    def _read(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isascii() or not length.isdigit():
            self._send(411, b'{"Err": "the request has no Content-Length"}')
            return None
        if len(length) > 9 or int(length) > MAX_MESSAGE:
            self._send(413, f'{{"Err": "the request has more than {MAX_MESSAGE} bytes"}}'.encode())
            return None
        body = self.rfile.read(int(length))
        return body if len(body) == int(length) else None

    def _send(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", _MEDIA_TYPE)
        self.send_header("Content-Length", str(len(body)))
        # A connection that is kept would hold a thread, and to open one costs little.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
        """What matters is told by whoever decides."""


def is_served(path: Path) -> bool:
    """Whether somebody listens at a plugin's socket. Raises OSError where that cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _peer(connection: socket.socket) -> tuple[int, int]:
    """The process and user id at the other end (unix(7), SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("=iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid), int(uid)

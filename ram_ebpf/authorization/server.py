"""The plugin's socket, which Docker Engine finds by where it is, and which only root may open.

https://docs.docker.com/engine/extend/plugin_api/: HTTP over a Unix socket, POST alone, named by the plugin.
bounded_http.py says how clients that are slow or many are borne.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
from collections.abc import Callable
from pathlib import Path

from ram_ebpf.authorization.messages import ACTIVATION
from ram_ebpf.bounded_http import BoundedThreads, Handler
from ram_ebpf.peer import peer_of

# RAM_EBPF_DOCKER_PLUGINS moves it, for hosts whose /run is not ours to write and for tests.
DIRECTORY = Path(os.environ.get("RAM_EBPF_DOCKER_PLUGINS") or "/run/docker/plugins")
NAME = "ram-ebpf"

MAX_MESSAGE = 8 << 20
"""Bytes. A body of 1 MiB in base64 and a megabyte of headers, of which JSON makes more, fit."""
MAX_CONNECTIONS = 64
_PATIENCE = 10.0  # seconds for a whole connection
_BACKLOG = 128
_MEDIA_TYPE = "application/vnd.docker.plugins.v1.1+json"

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
        self._server.begin("docker-plugin")

    def close(self) -> None:
        """Ends it. An engine that is told to ask this plugin does nothing from then on."""
        self._server.shutdown()
        self._server.server_close()
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()


class _Server(BoundedThreads, socketserver.UnixStreamServer):
    request_queue_size = _BACKLOG
    most_connections = MAX_CONNECTIONS

    def __init__(self, path: str, answer: Answer) -> None:
        self.answer = answer
        super().__init__(path, _Handler)


class _Handler(Handler):
    """One request of an engine."""

    server: _Server

    def patience(self) -> float:
        return _PATIENCE

    def handle(self) -> None:
        pid, uid, _ = peer_of(self.connection)
        if uid not in (0, os.geteuid()):
            return
        self._pid = pid
        super().handle()

    def do_POST(self) -> None:  # noqa: N802 - the base class names it so
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
        self.reply(status, _MEDIA_TYPE, body)


def is_served(path: Path) -> bool:
    """Whether somebody listens at a plugin's socket. Raises OSError where that cannot be told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_PATIENCE)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True

"""Who may read metrics, and where: HTTP at a loopback address or a Unix socket, for `GET /metrics` alone."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

from ram_ebpf.bounded_http import BoundedThreads, Handler
from ram_ebpf.endpoint import endpoint_text
from ram_ebpf.metrics.scraping import BusyError
from ram_ebpf.permissions import writable_by_others
from ram_ebpf.policy.enforced import MetricsLike

PATH = "/metrics"
_MOST_CONNECTIONS = 8
_BACKLOG = 128  # that wait; who finds no room there tries again a second later
_PATIENCE = 2.0  # seconds to ask, and again to take the answer
_PAUSE = 0.02  # so that who connects as often as possible takes a twentieth of a processor
_PLAIN = "text/plain; charset=utf-8"

Scrape = Callable[[str], tuple[str, bytes]]
"""Of the header Accept, the media type and the text. Raises BusyError or OSError."""


class _Bounded(BoundedThreads):
    request_queue_size = _BACKLOG
    most_connections = _MOST_CONNECTIONS
    pause = _PAUSE
    scrape: Scrape


class _AtAddress(_Bounded, socketserver.TCPServer):
    allow_reuse_address = True

    def __init__(self, address: str, port: int, scrape: Scrape) -> None:
        self.scrape = scrape
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, port), _Handler)


class _AtSocket(_Bounded, socketserver.UnixStreamServer):
    def __init__(self, path: str, scrape: Scrape) -> None:
        self.scrape = scrape
        super().__init__(path, _Handler)


class _Handler(Handler):
    server: _AtAddress | _AtSocket

    def patience(self) -> float:
        return _PATIENCE

    def do_GET(self) -> None:  # noqa: N802 - the base class names it so
        """The metrics."""
        if self.path.partition("?")[0] != PATH:
            self.reply(404, _PLAIN, f"there is only {PATH} here\n".encode())
            return
        try:
            media_type, text = self.server.scrape(self.headers.get("Accept") or "")
        except (BusyError, OSError) as error:
            why = str(error) or "the daemon is busy"
            self.reply(503, _PLAIN, f"no metrics now: {why}\n".encode(errors="replace"))
            return
        self.reply(200, media_type, text)

    def do_HEAD(self) -> None:  # noqa: N802
        """The same without the text."""
        self.do_GET()


class MetricsServer:
    """Serves until it is closed."""

    def __init__(self, wanted: MetricsLike, scrape: Scrape) -> None:
        """Raises OSError, whose text says what to do, where it cannot be served there."""
        self._path: Path | None = None
        self._server: _AtAddress | _AtSocket
        if wanted.socket is None:
            assert wanted.port is not None
            address = str(wanted.address)
            self.where = f"http://{endpoint_text(address, wanted.port)}{PATH}"
            self._server = _AtAddress(address, wanted.port, scrape)
        else:
            self.where = f"{wanted.socket} ({PATH})"
            self._server = self._at_socket(Path(wanted.socket), wanted, scrape)
        self._server.begin("metrics")

    def _at_socket(self, path: Path, wanted: MetricsLike, scrape: Scrape) -> _AtSocket:
        group = -1
        if wanted.group is not None:
            try:
                group = grp.getgrnam(wanted.group).gr_gid
            except KeyError:
                raise OSError(
                    f"there is no group {wanted.group} on this host: make it, or name another one"
                ) from None
        # Whoever may write there could have us change the mode of another file.
        if (others := writable_by_others(path.parent)) is not None:
            raise OSError(f"others than root may write in {others}: write a path below a directory of root's")
        if path.exists() and not path.is_socket():
            raise OSError(f"{path} is there already, and no socket: write another path")
        # Made aside and moved there whole: whoever looks finds a socket with the right mode.
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.unlink(missing_ok=True)
        server = _AtSocket(str(new), scrape)
        try:
            new.chmod(0o600)
            os.chown(new, -1, group, follow_symlinks=False)
            new.chmod(wanted.socket_mode)
            new.replace(path)
        except OSError:
            server.server_close()
            new.unlink(missing_ok=True)
            raise
        self._path, self._inode = path, path.stat().st_ino
        return server

    def close(self) -> None:
        """Ends it, without waiting for anybody."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    self._path.unlink()
        threading.Thread(target=self._end, name="metrics-end", daemon=True).start()

    def _end(self) -> None:
        self._server.shutdown()
        self._server.server_close()

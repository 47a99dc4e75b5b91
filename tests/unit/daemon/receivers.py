"""Receivers of exported lines, in this process, that read what RFC 5424 and OpenTelemetry's protocol say."""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

# RFC 5424 6, without the structured data's inside.
_MESSAGE = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\S+) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) (?P<proc>[!-~]{1,128}) "
    rb"(?P<msgid>[!-~]{1,32}) \[(?P<id>[!#-<>-\\^-~]{1,32})(?P<fields>.*)\] \xef\xbb\xbf(?P<text>[^\n]*)",
    re.DOTALL,
)
_FIELD = re.compile(r' ([!#-<>-\\^-~]{1,32})="((?:[^"\\\]]|\\["\\\]])*)"')


@dataclass(frozen=True)
class Message:
    """One of syslog's."""

    priority: int
    event: str
    fields: dict[str, list[str]]
    text: str

    @classmethod
    def parse(cls, data: bytes) -> Message:
        found = _MESSAGE.fullmatch(data)
        assert found is not None, data
        inside, fields, end = found["fields"].decode(), dict[str, list[str]](), 0
        while end < len(inside):
            one = _FIELD.match(inside, end)
            assert one is not None, inside[end:]
            fields.setdefault(one[1], []).append(re.sub(r'\\(["\\\]])', r"\1", one[2]))
            end = one.end()
        assert (found["app"], found["id"]) == (b"ram-ebpf", b"ram-ebpf@32473")
        return cls(int(found["pri"]), found["msgid"].decode(), fields, found["text"].decode())


@dataclass
class Syslog:
    """Listens by `unix`, `udp` or `tcp`, at `place`: a path, or a port of 127.0.0.1."""

    kind: str
    directory: Path
    received: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = str(self.directory / "log") if self.kind == "unix" else "127.0.0.1"
        self.port = 0
        self.open()

    def open(self) -> None:
        """Also again, at the same place."""
        family = socket.AF_UNIX if self.kind == "unix" else socket.AF_INET
        kind = socket.SOCK_STREAM if self.kind == "tcp" else socket.SOCK_DGRAM
        self._socket = socket.socket(family, kind)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.kind == "unix":
            Path(self.place).unlink(missing_ok=True)
            self._socket.bind(self.place)
        else:
            self._socket.bind((self.place, self.port))
            self.port = self._socket.getsockname()[1]
        if self.kind == "tcp":
            self._socket.listen()
        self._closing = False
        self._peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def options(self) -> str:
        """For `export.syslog`."""
        port = f", port: {self.port}" if self.port else ""
        return f"{{ {self.kind}: {self.place}{port} }}"

    def _run(self) -> None:
        self._socket.settimeout(0.05)
        while not self._closing:
            with contextlib.suppress(TimeoutError):
                if self.kind != "tcp":
                    self.received.append(Message.parse(self._socket.recv(1 << 16)))
                    continue
                peer, _ = self._socket.accept()
                self._peers.append(peer)
                threading.Thread(target=self._read, args=(peer,), daemon=True).start()

    def _read(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), peer.makefile("rb") as stream:
            while length := _digits(stream.read):
                self.received.append(Message.parse(stream.read(length)))

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        self._socket.close()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()


def _digits(read: object) -> int:
    """The length in front of a message (RFC 6587 3.4.1); 0 at the end."""
    assert callable(read)
    text = b""
    while (character := read(1)) not in (b" ", b""):
        text += character
    return int(text or b"0")


class Collector:
    """Takes logs of OpenTelemetry by HTTP. `status`: what it answers."""

    def __init__(self) -> None:
        self.requests: list[ExportLogsServiceRequest] = []
        self.status = 200
        self.hold = threading.Event()
        """Not set: nobody is answered."""
        self.hold.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                outer.hold.wait(10)
                if outer.status == 200:
                    assert self.headers["Content-Type"] == "application/x-protobuf"
                    outer.requests.append(ExportLogsServiceRequest.FromString(body))
                self.send_response(outer.status)
                self.end_headers()
                self.wfile.write(ExportLogsServiceResponse().SerializeToString())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}/v1/logs"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

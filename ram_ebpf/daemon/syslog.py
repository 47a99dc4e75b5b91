"""Lines as RFC 5424 has them, by a Unix socket, UDP (RFC 5426) or TCP (RFC 6587).

The standard library's SysLogHandler writes an older form (RFC 3164), without fields, and over TCP neither
frames its messages nor connects again.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from ram_ebpf.daemon.fields import fields_of, priority_of
from ram_ebpf.daemon.records import human_line
from ram_ebpf.policy.enforced import SyslogLike
from ram_ebpf.printable import printable

# 32473 is the number for those that have none of their own (RFC 5612).
_ID = "ram-ebpf@32473"
_DAEMON = 3 << 3  # the facility
_PATIENCE = 5.0  # seconds
_NOT_NAME = re.compile(r"[^!#-<>-\\^-~]")


def message_of(record: Mapping[str, Any], hostname: str) -> bytes:
    """One message. `record`: a line with its `time`."""
    event = str(record["event"])
    fields = "".join(f' {_name(key)}="{_escape(value)}"' for key, value in fields_of(record) if key != "time")
    head = (
        f"<{_DAEMON | priority_of(event)}>1 {record['time']} {_name(hostname)[:255] or '-'} ram-ebpf "
        f"{os.getpid()} {_name(event)[:32]} [{_ID}{fields}] "
    )
    return head.encode() + b"\xef\xbb\xbf" + printable(human_line(dict(record))).encode()


def _name(text: str) -> str:
    """Printable ASCII, and no character that ends a name."""
    return _NOT_NAME.sub("-", text)


def _escape(value: str) -> str:
    return re.sub(r'(["\\\]])', r"\\\1", value)


class SyslogSink:
    """A receiver. What it raises is an OSError."""

    def __init__(self, options: SyslogLike) -> None:
        """Connects to nobody yet."""
        self._options = options
        self._hostname = socket.gethostname()
        self._socket: socket.socket | None = None
        self.unsendable = 0
        """Lines that are too long for a datagram, since the start."""

    def send(self, records: Sequence[Mapping[str, Any]]) -> int:
        """Returns how many were sent, from the first one on. Raises OSError where none was."""
        for number, record in enumerate(records):
            try:
                self._send(message_of(record, self._hostname))
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    self.unsendable += 1
                    continue
                self.close()
                if number == 0:
                    raise
                return number
        return len(records)

    def _send(self, message: bytes) -> None:
        if self._socket is None:
            self._socket = self._connect()
        if self._options.tcp is not None:
            message = f"{len(message)} ".encode() + message  # RFC 6587 3.4.1
            self._notice_the_end(self._socket)
        self._socket.sendall(message)

    @staticmethod
    def _notice_the_end(connection: socket.socket) -> None:
        """A receiver has nothing to say but that it goes. What is written to one that has gone would be lost
        without an error."""
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if poll.poll(0) and connection.recv(1024) == b"":
            raise ConnectionResetError("the receiver has closed the connection")

    def _connect(self) -> socket.socket:
        if self._options.unix is not None:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            made.settimeout(_PATIENCE)
            try:
                made.connect(self._options.unix)
            except OSError:
                made.close()
                raise
            return made
        host, port = self._options.endpoint
        if self._options.tcp is not None:
            return socket.create_connection((host, port), _PATIENCE)
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.connect(address)
        except OSError:
            made.close()
            raise
        return made

    def close(self) -> None:
        """A later send() connects again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

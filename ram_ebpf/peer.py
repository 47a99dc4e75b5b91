"""Who is at the other end of a Unix socket (unix(7), SO_PEERCRED)."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_CREDENTIALS = struct.Struct("=iII")


class Peer(NamedTuple):
    """As it was when it connected, or began to listen."""

    pid: int
    uid: int
    gid: int
    """Its primary group."""


def peer_of(connection: socket.socket) -> Peer:
    """Raises OSError where the kernel does not say."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(raw))

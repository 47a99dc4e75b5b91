"""When a name was first asked for, by the clock of the kernel that saw the query leave the machine."""

from __future__ import annotations

import socket
import struct

from pyroute2 import netns

from tests.lab.namespaces import Namespace

_ETH_P_ALL = 3
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_TIME = struct.Struct("@qq")
_ENOUGH = 512  # octets of a packet; a query is shorter


class Wire:
    """All packets of a namespace, each with its time; nothing is read before somebody asks."""

    def __init__(self, namespace: Namespace) -> None:
        netns.pushns(namespace.name)
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        finally:
            netns.popns()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def close(self) -> None:
        """Stop watching."""
        self._socket.close()

    def forget(self) -> None:
        """Forget what has passed so far."""
        self.first("")

    def first(self, name: str) -> float | None:
        """The time (as of time.time()) of the first packet that has a name in it as DNS writes it."""
        needle = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"
        found: float | None = None
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(_ENOUGH, 64)
            except BlockingIOError:
                return found
            if found is None and needle in data:
                seconds, nanoseconds = _TIME.unpack(ancillary[0][2])
                found = seconds + nanoseconds / 1e9

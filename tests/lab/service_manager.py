"""The socket of a service manager, such as systemd's, and what is said there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


class Manager:
    """A socket by its path, or by `@` and an abstract name, as NOTIFY_SOCKET has it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)

    def received(self) -> list[dict[str, str]]:
        """Each datagram so far."""
        found: list[dict[str, str]] = []
        while True:
            try:
                text = self._socket.recv(65536).decode()
            except BlockingIOError:
                return found
            found.append(dict(line.split("=", 1) for line in text.split("\n")))

    def wait(self, condition: Callable[[dict[str, str]], bool], seconds: float) -> dict[str, str] | None:
        """The first datagram that meets a condition; None if none comes. Those before it are forgotten."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for found in self.received():
                if condition(found):
                    return found
            time.sleep(0.01)
        return None

    def fill(self) -> None:
        """Leaves no room for anything more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            while True:
                try:
                    other.sendto(b"X=1", self.address.replace("@", "\0", 1))
                except BlockingIOError:
                    return

    def close(self) -> None:
        """Nobody listens any more."""
        self._socket.close()

"""What the service manager is told: that we are ready, what we do, and that we are alive (sd_notify(3)).

The protocol is one datagram with lines of `KEY=value` to the socket that NOTIFY_SOCKET names. Without that
variable nobody asked, and nothing is sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import MutableMapping

_PATIENCE = 2.0  # seconds for the manager to make room for what it has to know
_BEATS = 3  # in the time that the watchdog waits for one
_log = logging.getLogger(__name__)


class ServiceManager:
    """The manager that has started this process, or nobody. For one thread alone. Nothing here raises."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        """`address`: a path, or `@` and an abstract name; '' is nobody. `watchdog`: seconds; 0: none."""
        self._address = b"\0" + os.fsencode(address[1:]) if address.startswith("@") else os.fsencode(address)
        self._pause = watchdog / _BEATS
        self._next_beat = float("-inf")
        self._status = ""
        self._failed = False
        self._socket = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) if address else None
        )

    @classmethod
    def of_environment(cls, environment: MutableMapping[str, str] | None = None) -> ServiceManager:
        """Takes the variables out of the environment, so that no child speaks in our name."""
        variables = os.environ if environment is None else environment
        address = variables.pop("NOTIFY_SOCKET", "")
        microseconds = variables.pop("WATCHDOG_USEC", "")
        process = variables.pop("WATCHDOG_PID", "")
        for_us = not process or process == str(os.getpid())
        known = microseconds.isascii() and microseconds.isdigit()
        if address and not address.startswith(("/", "@")):
            _log.warning("NOTIFY_SOCKET=%s is no Unix socket: the service manager is told nothing", address)
            address = ""
        return cls(address, int(microseconds) / 1e6 if for_us and known else 0.0)

    @property
    def watches(self) -> bool:
        """Whether it kills us when alive() is not called for too long."""
        return self._socket is not None and self._pause > 0

    @property
    def listens(self) -> bool:
        """Whether anybody is told anything."""
        return self._socket is not None

    def ready(self, status: str) -> None:
        """The start, or a reload, is over. `status`: a line for `systemctl status`."""
        self._status = status
        self._tell(f"READY=1\nSTATUS={_one_line(status)}")

    def status(self, text: str) -> None:
        """A line for `systemctl status`. Nothing is sent when it is the last one."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={_one_line(text)}")

    def reloading(self) -> None:
        """A reload begins; ready() ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The end begins."""
        self._tell("STOPPING=1")

    def next_beat(self) -> float:
        """When alive() has something to do, on the monotonic clock."""
        return self._next_beat if self.watches else float("inf")

    def alive(self) -> None:
        """For the main loop, in each of its turns: feeds the watchdog when it is time."""
        now = time.monotonic()
        if self._socket is None or not self.watches or now < self._next_beat:
            return
        try:
            self._socket.sendto(b"WATCHDOG=1", self._address)
        except BlockingIOError:
            return  # a manager with no time to read has none to kill us either; the next turn tries again
        except OSError as error:
            self._warn(error)
        self._next_beat = now + self._pause

    def _tell(self, text: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.settimeout(_PATIENCE)
            self._socket.sendto(text.encode(errors="replace"), self._address)
        except OSError as error:
            self._warn(error)
        finally:
            self._socket.settimeout(0)

    def _warn(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            name = self._address.replace(b"\0", b"@").decode(errors="replace")
            _log.warning("the service manager at %s cannot be told anything: %s", name, error)

    def close(self) -> None:
        """Tells nothing any more."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None


def _one_line(text: str) -> str:
    return " ".join(text.split())

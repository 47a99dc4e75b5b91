"""A continuous stream of allowed connections and of refused attempts, from wherever it was started.

    python -m tests.faults.stream '{"port": 8443, "period": 0.03, ...}'

Ends with its stdin, and says then on stdout what came of each attempt, as one line of JSON. A line on stdin
before asks for the same, for the time until then. See traffic.py for the other end.

Allowed: a name is looked up, and a connection to its address gets its answer over TLS, all within `patience`
seconds. Refused: the error that is expected, or the responder's answer in the place of the target's.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import random
import socket
import ssl
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.far_end import BLOCKED, EXACT, FRESH, UNLISTED
from tests.lab import topology

RESPONDER = ("127.82.65.77", "::1")  # bpf/lib/responder.h
_CUT = 0.4  # seconds after which a connection with a wrong name is known to get no answer
_MOST_FAILURES = 50


@dataclass
class Settings:
    """What the stream is to do. Seconds."""

    port: int = 8443
    period: float = 0.03
    """Between two attempts of a kind."""
    patience: float = 3.0
    errors: tuple[int, ...] = (errno.EPERM,)
    """By which a refused connection ends."""
    datagrams: bool = True
    """Whether a refused datagram is EPERM as well; at a device it is dropped behind the sender's back."""
    kept: bool = True
    """Whether one connection stays open all the time."""
    misnamed: bool = True
    """Whether some go to an allowed address with a name that is not."""
    lossy: bool = False
    """Whether datagrams are lost by others' doing: a name is asked for again after one second, not five."""


@dataclass
class Tally:
    """What came of it. Times are seconds since the epoch."""

    done: Counter[str] = field(default_factory=Counter)
    """How often each kind of attempt ended as it should."""
    wrongly_allowed: list[str] = field(default_factory=list)
    wrongly_refused: list[tuple[float, str]] = field(default_factory=list)
    failures: int = 0
    """How many were wrongly refused, however many of them are listed."""
    slowest: float = 0.0
    """Of what was allowed."""


class Stream:
    """Each kind of attempt has a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self.tally = Tally()
        self._context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
        self._careless = ssl.create_default_context()
        self._careless.check_hostname = False
        self._careless.verify_mode = ssl.CERT_NONE
        self._numbers = itertools.count(random.randrange(1 << 20))

    def start(self) -> list[threading.Thread]:
        """Begins."""
        kinds: list[Callable[[], None]] = [
            lambda: self._allowed("exact", lambda: EXACT),
            lambda: self._allowed("fresh", lambda: f"n{next(self._numbers)}.{FRESH}"),
            self._refused,
        ]
        if self._settings.misnamed:
            kinds.append(self._misnamed)
        if self._settings.kept:
            kinds.append(self._kept)
        threads = [threading.Thread(target=kind) for kind in kinds]
        for thread in threads:
            thread.start()
        return threads

    def report(self) -> str:
        """What came of it so far, as JSON."""
        with self._lock:
            return json.dumps(vars(self.tally))

    def stop(self) -> None:
        """Ends it, within `patience`."""
        self._stopped.set()

    def _good(self, kind: str, since: float | None = None) -> None:
        with self._lock:
            self.tally.done[kind] += 1
            if since is not None:
                self.tally.slowest = max(self.tally.slowest, time.monotonic() - since)

    def _bad(self, kind: str, why: object) -> None:
        with self._lock:
            self.tally.failures += 1
            if len(self.tally.wrongly_refused) < _MOST_FAILURES:
                self.tally.wrongly_refused.append((time.time(), f"{kind}: {why!r}"))

    def _hole(self, what: str) -> None:
        with self._lock:
            if len(self.tally.wrongly_allowed) < _MOST_FAILURES:
                self.tally.wrongly_allowed.append(f"{time.time():.3f} {what}")

    def _allowed(self, kind: str, name: Callable[[], str]) -> None:
        while not self._stopped.wait(self._settings.period):
            started = time.monotonic()
            try:
                with contextlib.closing(self._open(name())) as connection:
                    self._ask(connection)
                if time.monotonic() - started > self._settings.patience:
                    raise TimeoutError(f"{time.monotonic() - started:.1f} s")
            except OSError as error:
                self._bad(kind, error)
            else:
                self._good(kind, started)

    def _open(self, name: str) -> ssl.SSLSocket:
        address = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
        raw = socket.create_connection((str(address), self._settings.port), self._settings.patience)
        try:
            return self._context.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    @staticmethod
    def _ask(connection: ssl.SSLSocket) -> None:
        said = b"%d\n" % time.monotonic_ns()
        connection.sendall(said)
        heard = b""
        while not heard.endswith(b"\n"):
            part = connection.recv(4096)
            if not part:
                raise ConnectionError("the other end closed the connection")
            heard += part
        if heard != b"ok " + said:
            raise ConnectionError(f"not the registry's answer: {heard!r}")

    def _kept(self) -> None:
        connection: ssl.SSLSocket | None = None
        while not self._stopped.wait(self._settings.period):
            try:
                if connection is None:
                    connection = self._open(EXACT)
                self._ask(connection)
            except OSError as error:
                self._bad("kept", error)
                if connection is not None:
                    connection.close()
                connection = None
            else:
                self._good("kept")
        if connection is not None:
            connection.close()

    def _refused(self) -> None:
        attempts: list[Callable[[], None]] = [
            lambda: self._try_name(BLOCKED),
            lambda: self._try_connect(socket.AF_INET, topology.BLOCKED),
            lambda: self._try_connect(socket.AF_INET6, topology.BLOCKED_V6),
            lambda: self._try_send(socket.AF_INET, topology.BLOCKED),
            lambda: self._try_send(socket.AF_INET6, topology.BLOCKED_V6),
        ]
        for attempt in itertools.cycle(attempts):
            if self._stopped.wait(self._settings.period):
                return
            attempt()

    def _try_name(self, name: str) -> None:
        try:
            found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
        except OSError:
            return  # of resolvers, the others tell
        self._try_connect(socket.AF_INET, str(found[0][4][0]))

    def _try_connect(self, family: int, address: str) -> None:
        with socket.socket(family, socket.SOCK_STREAM) as item:
            item.settimeout(self._settings.patience)
            try:
                item.connect((address, self._settings.port))
            except OSError as error:
                if error.errno in (*self._settings.errors, errno.ECONNRESET, errno.ECONNREFUSED):
                    self._good("refused")
                else:  # it did not get there, which the target tells; but it was not told so
                    self._bad("refused", error)
                return
            try:
                peer = item.getpeername()[0]
            except OSError:  # ended right behind
                self._good("refused")
                return
            if peer not in RESPONDER:
                self._hole(f"a connection to {address}")
                with contextlib.suppress(OSError):
                    item.send(b"x")
                return
            self._good("answered" if self._is_answered(item) else "refused")

    def _is_answered(self, item: socket.socket) -> bool:
        """By the responder, as TLS wants it. It may end while it answers."""
        try:
            with self._careless.wrap_socket(item, server_hostname=BLOCKED) as connection:
                return bool(connection.getpeercert(binary_form=True))
        except OSError:
            return False

    def _try_send(self, family: int, address: str) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as item:
            try:
                item.sendto(b"x", (address, self._settings.port))
            except OSError as error:
                if error.errno in self._settings.errors or not self._settings.datagrams:
                    self._good("refused")
                else:
                    self._bad("refused", error)
                return
        if self._settings.datagrams:
            self._hole(f"a datagram to {address}")

    def _misnamed(self) -> None:
        """The right address with the wrong name."""
        while not self._stopped.wait(self._settings.period * 10):
            item = socket.socket()
            # It ends with this process's interest: what has not left is not sent again when nobody governs.
            item.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            item.settimeout(self._settings.patience)
            try:
                item.connect((topology.ALLOWED, self._settings.port))
                item.settimeout(_CUT)
                with self._context.wrap_socket(item, server_hostname=UNLISTED):
                    self._hole(f"a connection for {UNLISTED}")
            except OSError:
                self._good("misnamed")
            finally:
                item.close()


def main() -> None:
    """Runs until stdin ends."""
    settings = Settings(**json.loads(sys.argv[1]))
    if settings.lossy:
        os.environ["RES_OPTIONS"] = "timeout:1"  # resolv.conf(5)
    stream = Stream(settings)
    threads = stream.start()
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        print(stream.report(), flush=True)
    stream.stop()
    for thread in threads:
        thread.join()
    print(stream.report(), flush=True)


if __name__ == "__main__":
    main()

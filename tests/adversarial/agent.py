"""Does with sockets what it is told, wherever it was started: `python -m tests.adversarial.agent`.

Each line of JSON on stdin is one call, each on stdout its result. See actor.py for the other end. One
process that stays, rather than one for each attack: on a slow machine the start of Python takes seconds.
With `--contained` it has a PID namespace of its own, as the processes of a container have.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import random
import resource
import signal
import socket
import ssl
import sys
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

Range = tuple[int, int]  # from, and up to but not including

PATIENCE = 3.0  # seconds that a call on a socket may take

_AF_UNSPEC = 0
_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Agent:
    """The calls, by their names. Sockets are known by numbers."""

    def __init__(self) -> None:
        self._sockets: dict[int, socket.socket] = {}
        self._next = 0

    def open(self, family: int, kind: int, protocol: int = 0) -> int:
        """socket(2)."""
        return self._keep(socket.socket(family, kind, protocol))

    def method(self, number: int, name: str, *arguments: Any) -> Any:
        """Any method of a socket."""
        found = self._sockets[number]
        if name == "accept":
            accepted, peer = found.accept()
            return [self._keep(accepted), peer]
        if name == "close":
            del self._sockets[number]
        return getattr(found, name)(*arguments)

    def disconnect(self, number: int) -> None:
        """connect(2) with AF_UNSPEC, which takes the peer away from a socket."""
        address = _AF_UNSPEC.to_bytes(2, sys.byteorder) + bytes(14)
        if _libc.connect(self._sockets[number].fileno(), address, len(address)):
            raise OSError(ctypes.get_errno(), "disconnect")

    def drain(self, number: int) -> list[list[Any]]:
        """All datagrams that wait, each with its packet's type (packet(7)), without waiting for more."""
        found: list[list[Any]] = []
        item = self._sockets[number]
        item.setblocking(False)
        while True:
            try:
                data, address = item.recvfrom(65535)
            except BlockingIOError:
                return found
            found.append([data, address[2] if item.family == socket.AF_PACKET else 0])

    def reset(self) -> None:
        """Closes all sockets."""
        for item in self._sockets.values():
            item.close()
        self._sockets.clear()

    def resolve(self, name: str) -> list[str]:
        """The addresses that the C library finds."""
        return list(dict.fromkeys(str(item[4][0]) for item in socket.getaddrinfo(name, None)))

    def become(self, user: int) -> None:
        """Gives up root for another user, and with it all capabilities."""
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)

    def pin(self, cpu: int) -> None:
        """Stays on one processor from now on."""
        os.sched_setaffinity(0, {cpu})

    def move(self, cgroup: str) -> None:
        """Moves this process to another control group."""
        Path(cgroup, "cgroup.procs").write_text("0", encoding="ascii")

    def pid(self) -> int:
        """The process."""
        return os.getpid()

    def hammer(self, address: str, port: int, until: str) -> dict[str, int]:
        """Connects again and again until a file is there; how often with which outcome."""
        outcomes: Counter[str] = Counter()
        while not Path(until).exists():
            with socket.socket() as item:
                item.settimeout(PATIENCE)
                try:
                    item.connect((address, port))
                except OSError as error:
                    outcomes[errno.errorcode.get(error.errno or errno.ETIMEDOUT, "?")] += 1
                else:
                    outcomes["connected"] += 1
        return dict(outcomes)

    def rename(self, name: str) -> None:
        """Takes another name, of which the kernel keeps 15 bytes."""
        Path("/proc/self/comm").write_bytes(name.encode())

    def scatter(self, network: str, names: int, count: int) -> int:
        """Connects to as many addresses, one after the other; how many were refused at once.

        `network`: the first two bytes of the addresses, as in 198.18. `names`: how many names the process
        takes in turn.
        """
        refused = 0
        for number in range(count):
            if names:
                Path("/proc/self/comm").write_text(f"n{number % names}", encoding="ascii")
            with socket.socket() as item:
                item.settimeout(PATIENCE)
                try:
                    item.connect((f"{network}.{number >> 8 & 255}.{number & 255}", 1024 + number % 60000))
                except PermissionError:
                    refused += 1
        return refused

    def greet(self, address: str, port: int, most: int, until: str) -> int:
        """Opens connections and begins TLS on each, with another name, until a file is there; how many.

        Never reads, and leaves the last `most` open.
        """
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        context = ssl.create_default_context()
        items: deque[socket.socket] = deque()
        count = 0
        while not Path(until).exists():
            hello = ssl.MemoryBIO()
            tls = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=f"n{os.getpid()}-{count}.test")
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            item = socket.socket()
            item.settimeout(PATIENCE)
            with contextlib.suppress(OSError):  # there may be no room for more
                item.connect((address, port))
                item.sendall(hello.read())
            items.append(item)
            if len(items) > most:
                items.popleft().close()
            count += 1
        for item in items:
            item.close()
        return count

    def batter(self, address: str, port: int, until: str) -> int:
        """Sends datagrams that are refused until a file is there; how many were."""
        refused = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
            while refused & 0xFF or not Path(until).exists():
                with contextlib.suppress(PermissionError):
                    item.sendto(b"x", (address, port))
                refused += 1
        return refused

    def spray(self, number: int, wire: bytes, identifiers: Range, address: str, ports: Range) -> int:
        """Sends a DNS message with each of the ids to each of the ports; how many got out."""
        send, sent = self._sockets[number].sendto, 0
        for identifier in range(*identifiers):
            message = identifier.to_bytes(2, "big") + wire[2:]
            for port in range(*ports):
                send(message, (address, port))
                sent += 1
        return sent

    def dial(self, address: str, wires: tuple[bytes, ...]) -> int:
        """Opens a connection to a resolver for each of the messages, sends it there and never reads."""
        for wire in wires:
            number = self.open(socket.AF_INET, socket.SOCK_STREAM)
            self._sockets[number].connect((address, 53))
            self._sockets[number].sendall(len(wire).to_bytes(2, "big") + wire)
        return len(wires)

    def flood(self, address: str, count: int, suffix: str) -> int:
        """Sends DNS queries for ever new names below a suffix, from ever new ports; how many got out."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in suffix.split("."))
        tail = labels + b"\0\0\1\0\1"
        to, names = (address, 53), random.getrandbits(32)
        sent = 0
        for start in range(0, count, 500):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
                send = item.sendto
                for number in range(start, min(start + 500, count)):
                    header = (number & 0xFFFF).to_bytes(2, "big") + b"\1\0\0\1\0\0\0\0\0\0\x10"
                    send(b"%b%016x%b" % (header, names << 32 | number, tail), to)
                    sent += 1
        return sent

    def answer(self, number: int, until: str) -> int:
        """Answers DNS queries, each with an address of its own, until a file is there; how many."""
        item, answered = self._sockets[number], 0
        item.settimeout(0.1)
        while answered & 0xFF or not Path(until).exists():
            try:
                query, client = item.recvfrom(512)
            except TimeoutError:
                if Path(until).exists():
                    break
                continue
            answered += 1
            packed = (0xC6120000 | answered & 0x1FFFF).to_bytes(4, "big")  # of 198.18.0.0/15
            record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + packed
            counts = b"\x81\x80\0\1\0\1\0\0\0\0"
            item.sendto(query[:2] + counts + query[12:] + record, client)
        return answered

    def _keep(self, item: socket.socket) -> int:
        item.settimeout(PATIENCE)
        self._next += 1
        self._sockets[self._next] = item
        return self._next


def decode(value: Any) -> Any:
    """From JSON: {"hex": …} is bytes, and a list is a tuple, as socket addresses are."""
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if "hex" in value else value
    return tuple(map(decode, value)) if isinstance(value, list) else value


def encode(value: Any) -> Any:
    """To JSON, the reverse."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return [encode(item) for item in value] if isinstance(value, list | tuple) else value


def contain() -> None:
    """Goes on in a PID namespace of its own. The process that is outside waits for the end."""
    if _libc.unshare(_CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "unshare")
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Answers calls until stdin ends."""
    if "--contained" in sys.argv[1:]:
        contain()
    agent = Agent()
    for line in sys.stdin:
        name, arguments = json.loads(line)
        call: Callable[..., Any] = getattr(agent, name)
        try:
            reply = {"value": encode(call(*map(decode, arguments)))}
        except OSError as error:
            number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno
            reply = {"errno": number, "text": f"{name} {arguments}: {error}"[:500]}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()

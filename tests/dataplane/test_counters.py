"""No count is lost when one packet interrupts the program that counts another one on the same processor."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.trusted import TrustedResolver

from . import messages as m
from .exchanges import DENIED_NAMES, ONE, REGISTRIES, ask, tell
from .messages import address
from .support import Bench
from .wire import RESOLVER, Wire, acknowledge_at_once, governed, inside, send_many, steered

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

SECONDS = 2.0
INTERRUPTED, *_, INTERRUPTING = (*sorted(os.sched_getaffinity(0)), max(os.sched_getaffinity(0)))  # processors
REPEAT = 1_000
DATAGRAMS = 1_000  # that the kernel takes with one call
BURST = 100  # datagrams that a socket has room for

SEGMENT = bytes(1000)
NOT_AWAITED = tell(address(ONE), identity=8).payload
QUERY = ask("evil.example").payload


@contextmanager
def pinned(processor: int) -> Iterator[None]:
    """This process on one processor, for a while."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def beside(work: Callable[[], int], processor: int) -> Iterator[Callable[[], int]]:
    """Another process on another processor; gives what waits for its end and for the number that it made."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pinned(processor):
                os.write(writing, struct.pack("=Q", work()))
            status = 0
        finally:
            os._exit(status)  # whatever happens, no test goes on in here
    os.close(writing)

    def result() -> int:
        data = os.read(reading, 8)
        assert len(data) == 8, "the other process failed"
        (number,) = struct.unpack("=Q", data)
        return int(number)

    try:
        yield result
    finally:
        os.close(reading)
        os.waitpid(child, 0)


def segments_sent(connection: socket.socket) -> int:
    """By TCP, those without data included (struct tcp_info, tcpi_segs_out)."""
    (count,) = struct.unpack_from("=I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144), 136)
    return int(count)


@contextmanager
def connection(wire: Wire) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end of a TCP connection to the resolver, and the other end."""
    with socket.socket() as listener:
        listener.bind(wire.resolver.getsockname())
        listener.listen()
        with inside(wire.cgroup):
            near = socket.socket()
        with near:
            near.connect(listener.getsockname())
            far, _ = listener.accept()
            with far:
                far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                far.settimeout(5)
                yield near, far


def interrupt(wire: Wire, near: socket.socket, far: socket.socket, end: float) -> int:
    """Packets that come in: data of TCP, which is acknowledged at once, and replies that nobody awaits."""
    place = wire.client.getsockname()
    sent = 0
    while time.monotonic() < end:
        for _ in range(BURST):
            far.send(SEGMENT)
            wire.resolver.sendto(NOT_AWAITED, place)
        for _ in range(BURST):
            wire.client.recv(65536)
        waiting = BURST * len(SEGMENT)
        while waiting:
            waiting -= len(near.recv(waiting))
        sent += BURST
    return sent


def be_interrupted(wire: Wire, end: float) -> tuple[int, int]:
    """Packets that leave, and test runs; how many queries, and replies that nobody awaits, these were."""
    fds = wire.scope.programs.fds
    wire.client.connect(wire.resolver.getsockname())
    query = m.Query(QUERY, (), server=RESOLVER).frame()
    reply = m.Reply(NOT_AWAITED, (), server=RESOLVER).frame()
    queries = replies = 0
    while time.monotonic() < end:
        send_many(wire.client, QUERY, DATAGRAMS)
        queries += DATAGRAMS
        # Before about Linux 6.10 these are interrupted as well.
        syscall.program_test_run(fds["out"], query, REPEAT)
        syscall.program_test_run(fds["in"], reply, REPEAT)
        queries += REPEAT
        replies += REPEAT
    return queries, replies


@pytest.mark.heavy  # many packets make it likely that some come just then
def test_nothing_is_lost(bench: Bench, tmp_path: Path) -> None:
    trusted = bench.trusting([TrustedResolver(ip_address(RESOLVER))])
    with trusted, governed(bench) as wire, steered(tmp_path, INTERRUPTED), connection(wire) as (near, far):
        acknowledge_at_once()
        bench.reset()
        segments = segments_sent(near)
        end = time.monotonic() + SECONDS
        with beside(lambda: interrupt(wire, near, far, end), INTERRUPTING) as sent, pinned(INTERRUPTED):
            queries, replies = be_interrupted(wire, end)
            replies += sent()
        segments = segments_sent(near) - segments
        counted = bench.counted()
    assert segments > 1000
    assert counted[Reason.ALLOWED_RESOLVER] == queries + segments
    assert counted[Reason.DNS_NO_QUERY] == replies

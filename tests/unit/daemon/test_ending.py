"""Connections whose packets are refused are ended."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ram_ebpf.daemon.ending import CAUSES, Ending, is_to_end
from ram_ebpf.dataplane import abi, sockets
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.events import Beginning
from ram_ebpf.dataplane.sockets import Connection
from ram_ebpf.tally import Tally

from .samples import EVENT

SO_COOKIE = 57
LOCAL = ip_address("10.0.0.2")
REFUSED = replace(
    EVENT,
    reason=Reason.DENIED_UNKNOWN_ADDRESS,
    hook=abi.Hook.INET_EGRESS,
    verdict=abi.Verdict.DENY,
    protocol=socket.IPPROTO_TCP,
    packet=b"",
)
MISNAMED = replace(
    REFUSED,
    reason=Reason.NAME_MISMATCH,
    beginning=Beginning(LOCAL, 40000, b"...evil.example", "evil.example"),
)


@pytest.fixture
def pair() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            yield client


def cookie_of(item: socket.socket) -> int:
    (cookie,) = struct.unpack("=Q", item.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8))
    return int(cookie)


class Ended:
    """What was ended, in place of the kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, mount: Path) -> None:
        self.calls: list[tuple[Connection, int, Path | None]] = []
        self.some = threading.Event()
        (mount / "docker").mkdir()
        (mount / "docker" / "cgroup.procs").write_text(f"{os.getpid()}\n{os.getppid()}\n", encoding="ascii")
        monkeypatch.setattr(sockets, "destroy", self._destroy)
        self.settled = 0
        self.cut = Tally(*CAUSES)
        self.ending = Ending(
            lambda identifier: mount / ("docker" if identifier == 77 else "gone"),
            lambda: self.settled,
            self.cut,
        )

    def _destroy(self, connection: Connection, cookie: int, namespace: Path | None) -> None:
        self.calls.append((connection, cookie, namespace))
        self.some.set()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ended:
    # The namespaces of others cannot be entered without rights.
    monkeypatch.setattr("ram_ebpf.dataplane.namespaces.identity", lambda path: (0, 0))
    monkeypatch.setattr("ram_ebpf.dataplane.namespaces._enter", lambda fd, what: None)
    return Ended(monkeypatch, tmp_path)


def test_refused_connection_is_ended_once(ended: Ended, pair: socket.socket) -> None:
    event = replace(REFUSED, socket_cookie=cookie_of(pair))
    for _ in range(3):
        ended.ending.take(event)
    assert ended.some.wait(5)
    connection, cookie, namespace = ended.calls[0]
    assert cookie == event.socket_cookie
    assert namespace is not None
    assert (connection.local_port, connection.remote_port) == (pair.getsockname()[1], pair.getpeername()[1])


def test_connection_that_the_event_tells(ended: Ended) -> None:
    """It is not looked for."""
    ended.ending.take(MISNAMED)
    assert ended.some.wait(5)
    assert ended.calls[0][:2] == (Connection(LOCAL, 40000, EVENT.address, EVENT.port), EVENT.socket_cookie)


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": abi.Verdict.WOULD_DENY},
        {"protocol": socket.IPPROTO_UDP},
        {"hook": abi.Hook.INET4_CONNECT},
        {"hook": abi.Hook.DEVICE_OUTGOING},  # where a reset was sent
        {"reason": Reason.DENIED_SEGMENT},  # what was sent at the wrong moment comes again
        {"socket_cookie": 0},
    ],
    ids=str,
)
def test_nothing_to_end(changes: dict[str, object]) -> None:
    assert is_to_end(MISNAMED)
    assert is_to_end(REFUSED)
    assert not is_to_end(replace(MISNAMED, **changes))  # type: ignore[arg-type]


def test_connections_that_are_gone(ended: Ended, pair: socket.socket) -> None:
    """Nothing happens, and the next one is ended all the same."""
    event = replace(REFUSED, socket_cookie=cookie_of(pair))
    ended.ending.take(replace(event, socket_cookie=2**63))
    ended.ending.take(replace(event, socket_cookie=2**62, cgroup_id=5))
    ended.ending.take(replace(event, socket_cookie=2**61, cgroup_id=None))
    ended.ending.take(event)
    assert ended.some.wait(5)
    assert {cookie for _, cookie, _ in ended.calls} == {event.socket_cookie}
    deadline = time.monotonic() + 5
    while not ended.cut.counts()["refused"] and time.monotonic() < deadline:
        time.sleep(0.005)
    assert ended.cut.counts() == {"refused": 1, "registry-found": 0}


def test_what_is_not_settled_may_be_allowed_a_moment_later(ended: Ended) -> None:
    """While one instance follows another: TCP sends again what was dropped then. A wrong name stays wrong."""
    ended.settled = REFUSED.time_ns + 1
    ended.ending.take(replace(REFUSED, socket_cookie=1, beginning=MISNAMED.beginning))
    ended.ending.take(replace(MISNAMED, socket_cookie=2))
    assert ended.some.wait(5)
    assert [cookie for _, cookie, _ in ended.calls] == [2]
    ended.some.clear()
    ended.settled = REFUSED.time_ns
    ended.ending.take(replace(REFUSED, socket_cookie=1, beginning=MISNAMED.beginning))
    assert ended.some.wait(5)
    assert [cookie for _, cookie, _ in ended.calls] == [2, 1]


def test_reset_that_missed_is_tried_again(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel cannot end a socket. What was received meanwhile is known by the next packet."""
    connection = Connection(LOCAL, 40000, EVENT.address, EVENT.port)
    there = [(7, connection)]
    sent: list[int] = []

    def destroy(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "sock_diag")

    def reset(found: Connection, sequence: int, namespace: Path | None) -> None:
        assert found == connection
        sent.append(sequence)
        if sequence == 1100:
            there.clear()

    monkeypatch.setattr(sockets, "destroy", destroy)
    monkeypatch.setattr(sockets, "reset", reset)
    monkeypatch.setattr(sockets, "connections", lambda namespace: iter(there))
    event = replace(REFUSED, socket_cookie=7, cgroup_id=None, acknowledged=1000)
    deadline = time.monotonic() + 5
    while not ended.cut.counts()["refused"] and time.monotonic() < deadline:
        ended.ending.take(event)
        time.sleep(0.02)
        event = replace(event, acknowledged=1100)
    assert sent == [1000, 1100]
    assert ended.cut.counts()["refused"] == 1


def test_what_is_not_found_is_looked_for_again(ended: Ended, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a packet that comes later, and not with each of a flood."""
    connection = Connection(LOCAL, 40000, EVENT.address, EVENT.port)
    looks: list[float] = []

    def connections(namespace: Path | None) -> Iterator[tuple[int, Connection]]:
        looks.append(time.monotonic())
        if len(looks) > 1:
            yield 8, connection

    monkeypatch.setattr(sockets, "connections", connections)
    event = replace(REFUSED, socket_cookie=8, cgroup_id=None)
    deadline = time.monotonic() + 5
    while not ended.some.is_set() and time.monotonic() < deadline:
        ended.ending.take(event)
        time.sleep(0.01)
    assert ended.calls == [(connection, 8, None)]
    assert looks[1] - looks[0] >= 0.4

"""Connections whose packets are refused are ended."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ram_ebpf.daemon.ending import Ending
from ram_ebpf.dataplane import abi, sockets
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.sockets import Connection

SO_COOKIE = 57
REFUSED = Event(
    time_ns=1,
    verdict=abi.Verdict.DENY,
    reason=abi.Reason.DENIED_UNKNOWN_ADDRESS,
    hook=abi.Hook.INET_EGRESS,
    address=ip_address("127.0.0.1"),
    port=443,
    protocol=socket.IPPROTO_TCP,
    rule=0,
    scope=1,
    detail=0,
    socket_cookie=0,
    pid=None,
    process=None,
    uid=None,
    cgroup_id=5,
    packet=b"",
    dns_message=None,
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
        self.ending = Ending(mount)

    def _destroy(self, connection: Connection, cookie: int, namespace: Path | None) -> None:
        self.calls.append((connection, cookie, namespace))
        self.some.set()
        raise OSError(95, "Operation not supported")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ended:
    # The namespaces of others cannot be entered without rights.
    monkeypatch.setattr("ram_ebpf.dataplane.namespaces.identity", lambda path: (0, 0))
    monkeypatch.setattr("ram_ebpf.dataplane.namespaces._enter", lambda fd, what: None)
    return Ended(monkeypatch, tmp_path)


def test_refused_connection_is_ended_once(ended: Ended, pair: socket.socket) -> None:
    event = replace(REFUSED, socket_cookie=cookie_of(pair))
    for _ in range(3):
        ended.ending.take(event, "/docker")
    assert ended.some.wait(5)
    ((connection, cookie, _),) = ended.calls
    assert cookie == event.socket_cookie
    assert (connection.local_port, connection.remote_port) == (pair.getsockname()[1], pair.getpeername()[1])


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": abi.Verdict.WOULD_DENY},
        {"protocol": socket.IPPROTO_UDP},
        {"hook": abi.Hook.INET4_CONNECT},
        {"hook": abi.Hook.DEVICE_OUTGOING},
        {"socket_cookie": 0},
    ],
    ids=str,
)
def test_what_is_not_ended(ended: Ended, pair: socket.socket, changes: dict[str, object]) -> None:
    event = replace(REFUSED, socket_cookie=cookie_of(pair))
    ended.ending.take(replace(event, **changes), "/docker")  # type: ignore[arg-type]
    ended.ending.take(event, None)
    ended.ending.take(replace(event, socket_cookie=2**63), "/docker")  # nobody's
    ended.ending.take(replace(event, socket_cookie=2**62), "/gone")
    ended.ending.take(event, "/docker")  # after all of these
    assert ended.some.wait(5)
    assert [cookie for _, cookie, _ in ended.calls] == [event.socket_cookie]

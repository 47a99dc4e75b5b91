"""The plugin's socket: Docker's plugin API, and clients that are slow, many, or strange."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ram_ebpf.authorization import server
from ram_ebpf.authorization.server import MAX_CONNECTIONS, MAX_MESSAGE, PluginServer


class Asked:
    """Answers with what it is asked, once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.may.set()
        self.pids: list[int] = []

    def __call__(self, body: bytes, pid: int) -> bytes:
        assert self.may.wait(10.0)
        self.pids.append(pid)
        return body


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def plugin(asked: Asked, tmp_path: Path) -> Iterator[PluginServer]:
    made = PluginServer(asked, tmp_path / "plugins")
    yield made
    asked.may.set()
    made.close()


def connect(plugin: PluginServer) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10.0)
    client.connect(str(plugin.path))
    return client


def read_all(client: socket.socket) -> bytes:
    said = b""
    while part := client.recv(65536):
        said += part
    return said


def send(plugin: PluginServer, data: bytes) -> tuple[int, bytes]:
    with connect(plugin) as client:
        client.sendall(data)
        header, _, body = read_all(client).partition(b"\r\n\r\n")
    return (int(header.split()[1]) if header.startswith(b"HTTP/") else 0), body


def call(plugin: PluginServer, method: str, body: bytes = b"{}") -> tuple[int, bytes]:
    head = f"POST /{method} HTTP/1.1\r\nHost: plugin\r\nContent-Length: {len(body)}\r\n\r\n"
    return send(plugin, head.encode() + body)


def test_handshake(plugin: PluginServer) -> None:
    """As Docker's plugin API has it."""
    status, said = call(plugin, "Plugin.Activate", b"")
    assert (status, json.loads(said)) == (200, {"Implements": ["authz"]})


def test_request_and_response(plugin: PluginServer, asked: Asked) -> None:
    assert call(plugin, "AuthZPlugin.AuthZReq", b'{"a": 1}') == (200, b'{"a": 1}')
    status, said = call(plugin, "AuthZPlugin.AuthZRes", b"x" * 10_000)
    assert (status, json.loads(said)) == (200, {"Allow": True})
    assert len(asked.pids) == 1
    assert asked.pids[0] > 0


def test_for_root_alone(plugin: PluginServer) -> None:
    assert plugin.path.stat().st_mode & 0o777 == 0o600
    assert plugin.path.name == "ram-ebpf.sock"
    assert [path.name for path in plugin.path.parent.iterdir()] == ["ram-ebpf.sock"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST /VolumeDriver.Create HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        (b"GET /Plugin.Activate HTTP/1.1\r\n\r\n", 501),
        (b"POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nContent-Length: x\r\n\r\n", 411),
        (b"POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411),
        (b"POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (MAX_MESSAGE + 1), 413),
        (b"POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"POST /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"\x00\x01\x02\r\n\r\n", 0),
    ],
)
def test_what_is_no_request(plugin: PluginServer, asked: Asked, data: bytes, status: int) -> None:
    found, said = send(plugin, data)
    assert found == status
    assert b'"Allow": true' not in said
    assert asked.pids == []


def test_body_that_ends_early(plugin: PluginServer, asked: Asked) -> None:
    with connect(plugin) as client:
        client.sendall(b"POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nContent-Length: 10\r\n\r\n{}")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
    assert asked.pids == []


def test_largest(plugin: PluginServer) -> None:
    body = b" " * MAX_MESSAGE
    assert call(plugin, "AuthZPlugin.AuthZReq", body) == (200, body)


def test_many_at_once(plugin: PluginServer, asked: Asked) -> None:
    """As many as there are threads wait for an answer, and others for a thread; all get theirs."""
    asked.may.clear()
    before = threading.active_count()
    with ThreadPoolExecutor(MAX_CONNECTIONS * 2) as pool:
        calls = [
            pool.submit(call, plugin, "AuthZPlugin.AuthZReq", str(number).encode())
            for number in range(MAX_CONNECTIONS * 2)
        ]
        time.sleep(0.1)
        assert threading.active_count() <= before + MAX_CONNECTIONS * 3
        asked.may.set()
        for number, made in enumerate(calls):
            assert made.result() == (200, str(number).encode())


def test_slow_one_holds_up_nobody(plugin: PluginServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.3)
    with connect(plugin) as silent, connect(plugin) as slow:
        slow.sendall(b"POST /AuthZPlugin.AuthZReq HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        assert call(plugin, "AuthZPlugin.AuthZReq", b"{}")[0] == 200
        started = time.monotonic()
        said = b""
        while time.monotonic() - started < 5.0:
            try:
                slow.sendall(b" ")  # a byte now and then does not make it wait longer
            except OSError:
                break
            time.sleep(0.02)
        assert time.monotonic() - started < 2.0
        assert read_all(silent) == said


def test_another_instance(plugin: PluginServer) -> None:
    with pytest.raises(FileExistsError):
        PluginServer(lambda body, pid: body, plugin.path.parent)
    assert call(plugin, "Plugin.Activate")[0] == 200


def test_left_by_a_killed_instance(asked: Asked, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "ram-ebpf.sock"))
    made = PluginServer(asked, tmp_path)
    assert call(made, "Plugin.Activate")[0] == 200
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_directories_are_made_for_root_alone(asked: Asked, tmp_path: Path) -> None:
    PluginServer(asked, tmp_path / "docker" / "plugins").close()
    for made in (tmp_path / "docker", tmp_path / "docker" / "plugins"):
        assert made.stat().st_mode & 0o777 == 0o700


def test_directory_that_cannot_be_written(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "plugins").write_text("a file")
    with pytest.raises(OSError, match="plugins"):
        PluginServer(asked, tmp_path / "plugins")


def test_one_that_ends_late(asked: Asked, tmp_path: Path) -> None:
    """It does not take away the socket of the next one."""
    first = PluginServer(asked, tmp_path)
    first.path.unlink()
    second = PluginServer(asked, tmp_path)
    first.close()
    assert call(second, "Plugin.Activate")[0] == 200
    second.close()

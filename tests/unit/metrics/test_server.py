"""Where metrics are served, and clients that are slow, many, or strange."""

from __future__ import annotations

import grp
import os
import socket
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ram_ebpf.metrics import server
from ram_ebpf.metrics.scraping import BusyError
from ram_ebpf.metrics.server import MetricsServer
from ram_ebpf.policy.metrics import Metrics, SocketMode

PLACE = tuple[str, int]


class Scrape:
    """Answers with what is asked for."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __call__(self, accept: str) -> tuple[str, bytes]:
        if self.error is not None:
            raise self.error
        return "text/plain", f"accepts {accept}\n".encode()


@pytest.fixture
def scrape() -> Scrape:
    return Scrape()


@pytest.fixture
def place() -> PLACE:
    with socket.socket() as item:
        item.bind(("127.0.0.1", 0))
        host, port = item.getsockname()
        return host, port


@pytest.fixture
def served(scrape: Scrape, place: PLACE) -> Iterator[PLACE]:
    made = MetricsServer(Metrics(port=place[1]), scrape)
    assert made.where == f"http://127.0.0.1:{place[1]}/metrics"
    yield place
    made.close()


def talk(client: socket.socket, data: bytes) -> tuple[int, bytes]:
    client.sendall(data)
    said = b""
    while part := client.recv(65536):
        said += part
    header, _, body = said.partition(b"\r\n\r\n")
    return (int(header.split()[1]) if header.startswith(b"HTTP/") else 0), body


def ask(place: PLACE, data: bytes) -> tuple[int, bytes]:
    with socket.create_connection(place, 10.0) as client:
        return talk(client, data)


GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: text/plain\r\n\r\n"


def test_get(served: PLACE) -> None:
    assert ask(served, GET) == (200, b"accepts text/plain\n")
    assert ask(served, GET.replace(b"/metrics", b"/metrics?name=x")) == (200, b"accepts text/plain\n")
    assert ask(served, GET.replace(b"GET", b"HEAD")) == (200, b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 501),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /metrics HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
        (b"\x00\x01\x02\r\n\r\n", 0),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 0),
    ],
)
def test_what_is_no_request(served: PLACE, data: bytes, status: int) -> None:
    found, _ = ask(served, data)
    assert found == status or (status == 0 and found >= 400)
    assert ask(served, GET)[0] == 200


def test_no_answer(served: PLACE, scrape: Scrape) -> None:
    scrape.error = BusyError()
    assert ask(served, GET) == (503, b"no metrics now: the daemon is busy\n")
    scrape.error = OSError("too many open files")
    assert ask(served, GET)[0] == 503
    scrape.error = ValueError("a surprise")
    assert ask(served, GET)[0] == 0
    scrape.error = None
    assert ask(served, GET)[0] == 200


def test_slow_ones_hold_up_nobody_for_long(served: PLACE, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_PATIENCE", 0.3)
    slow = [socket.create_connection(served, 10.0) for _ in range(20)]
    try:
        for item in slow:
            item.sendall(b"GET /metrics HTTP/1.1\r\n")
        started = time.monotonic()
        assert ask(served, GET)[0] == 200
        assert time.monotonic() - started < 5.0
    finally:
        for item in slow:
            item.close()


def test_many(served: PLACE) -> None:
    with ThreadPoolExecutor(20) as pool:
        assert {status for status, _ in pool.map(lambda _: ask(served, GET), range(40))} == {200}


def test_closing_waits_for_nobody(scrape: Scrape, place: PLACE) -> None:
    made = MetricsServer(Metrics(port=place[1]), scrape)
    waiting = [socket.create_connection(place, 10.0) for _ in range(20)]
    started = time.monotonic()
    made.close()
    assert time.monotonic() - started < 0.5
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        try:
            MetricsServer(Metrics(port=place[1]), scrape).close()
            break
        except OSError:
            time.sleep(0.05)
    else:
        pytest.fail("the port is not free again")
    for item in waiting:
        item.close()


def test_a_port_that_is_taken(served: PLACE, scrape: Scrape) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        MetricsServer(Metrics(port=served[1]), scrape)


def ask_at(path: Path) -> tuple[int, bytes]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10.0)
        client.connect(str(path))
        return talk(client, GET)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is nobody else's, also where root is not who runs this."""
    if os.geteuid() != 0:
        monkeypatch.setattr(server, "writable_by_others", lambda path: None)
    return tmp_path


def test_at_a_socket(scrape: Scrape, trusted: Path) -> None:
    path = trusted / "m.sock"
    group = grp.getgrgid(os.getegid()).gr_name
    made = MetricsServer(Metrics(socket=str(path), group=group), scrape)
    try:
        assert ask_at(path)[0] == 200
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == os.getegid()
        assert [item.name for item in trusted.iterdir()] == ["m.sock"]
        # As after a reload with another mode: the newer one is there before the older one goes.
        again = MetricsServer(Metrics(socket=str(path), mode=SocketMode.ALL), scrape)
        made.close()
        assert ask_at(path)[0] == 200
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        again.close()
        assert not path.exists()
    finally:
        made.close()


def test_what_a_dead_instance_has_left(scrape: Scrape, trusted: Path) -> None:
    path = trusted / "m.sock"
    with socket.socket(socket.AF_UNIX) as item:
        item.bind(str(path))
    made = MetricsServer(Metrics(socket=str(path)), scrape)
    assert ask_at(path)[0] == 200
    made.close()


def test_sockets_that_cannot_be(scrape: Scrape, trusted: Path) -> None:
    (trusted / "file").write_text("somebody's")
    with pytest.raises(OSError, match="is there already, and no socket: write another path"):
        MetricsServer(Metrics(socket=str(trusted / "file")), scrape)
    assert (trusted / "file").read_text() == "somebody's"
    with pytest.raises(OSError, match="there is no group no-such-group-of-anybody on this host: make it"):
        MetricsServer(Metrics(socket=str(trusted / "m"), group="no-such-group-of-anybody"), scrape)
    with pytest.raises(FileNotFoundError):
        MetricsServer(Metrics(socket=str(trusted / "nowhere" / "m")), scrape)


def test_a_directory_in_which_others_may_write(scrape: Scrape, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(OSError, match="others than root may write in "):
        MetricsServer(Metrics(socket=str(tmp_path / "m")), scrape)

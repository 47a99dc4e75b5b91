"""Whether a registry answers: against servers on the loopback interface."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.oci import ping
from ram_ebpf.oci.ping import ask, is_registry_answer

from .server import LOOPBACK, REGISTRY, WEBSITE, Handler, Server, answers, closed_port

AT_MOST = 7.0  # seconds, with both ways of asking
VERSION = {"docker-distribution-api-version": "registry/2.0"}
UNAUTHORIZED = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}'


# --- what an answer says


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        pytest.param(200, VERSION, b"{}", True, id="old header"),
        pytest.param(404, VERSION, b"", True, id="old header, whatever the status"),
        pytest.param(200, {"docker-distribution-api-version": " Registry/2.0 "}, b"", True, id="its case"),
        pytest.param(200, {"docker-distribution-api-version": "none"}, b"", False, id="another version"),
        pytest.param(401, {}, UNAUTHORIZED, True, id="unauthorized"),
        pytest.param(401, {}, b" \r\n" + UNAUTHORIZED, True, id="space in front"),
        pytest.param(403, {}, b'{"errors":[{"code":"DENIED"}]}', True, id="denied"),
        pytest.param(
            404, {}, b'{"errors":[{"code":"NAME_UNKNOWN"},{"code":"UNSUPPORTED"}]}', True, id="two errors"
        ),
        pytest.param(200, {}, UNAUTHORIZED, False, id="no error"),
        pytest.param(200, {}, b"{}", False, id="empty document"),
        pytest.param(200, {}, b"<html>hello</html>", False, id="a website"),
        pytest.param(301, {"location": "https://a.example/v2/"}, b"", False, id="elsewhere"),
        pytest.param(404, {}, b"<html>not found</html>", False, id="a website without such a page"),
        pytest.param(404, {}, b'{"message":"page not found"}', False, id="an API of something else"),
        pytest.param(404, {}, b'{"errors":[]}', False, id="no errors"),
        pytest.param(404, {}, b'{"errors":["not found"]}', False, id="errors in words"),
        pytest.param(404, {}, b'{"errors":[{"message":"not found"}]}', False, id="no code"),
        pytest.param(422, {}, b'{"errors":[{"code":"missing_field"}]}', False, id="another kind of code"),
        pytest.param(422, {}, b'{"errors":[{"code":17}]}', False, id="a number"),
        pytest.param(404, {}, b'{"errors":[{"code":"DENIED"},{}]}', False, id="one without a code"),
        pytest.param(404, {}, b'{"errors":{"code":"DENIED"}}', False, id="no list"),
        pytest.param(404, {}, b'[{"errors":[{"code":"DENIED"}]}]', False, id="a list"),
        pytest.param(404, {}, b'{"errors":[{"code":"DENIED"}', False, id="cut off"),
        pytest.param(404, {}, b'{"errors":' + b"[" * 60_000, False, id="deep"),
        pytest.param(404, {}, b'{"a":' + b"1" * 60_000 + b"}", False, id="a long number"),
        pytest.param(404, {}, b'{"\xff":1}', False, id="not UTF-8"),
    ],
)
def test_answer(status: int, headers: dict[str, str], body: bytes, expected: bool) -> None:
    assert is_registry_answer(status, headers, body) is expected


@given(st.integers(), st.dictionaries(st.text(), st.text()), st.binary())
def test_any_answer(status: int, headers: dict[str, str], body: bytes) -> None:
    assert is_registry_answer(status, headers, body) is False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
CODES = st.sampled_from(["DENIED", "UNAUTHORIZED", "NAME_UNKNOWN", "denied", "", "A", "A" * 70, "X Y"])
ERRORS = st.lists(JSON | st.fixed_dictionaries({"code": CODES | JSON}, optional={"detail": JSON}), max_size=3)


@given(st.integers(400, 599), JSON | st.fixed_dictionaries({"errors": JSON | ERRORS}, optional={"a": JSON}))
def test_any_document(status: int, document: object) -> None:
    """A registry's is one of which every error has a code in capitals, and nothing else is."""
    errors = document.get("errors") if isinstance(document, dict) else None
    expected = (
        isinstance(errors, list)
        and bool(errors)
        and all(
            isinstance(error, dict)
            and isinstance(error.get("code"), str)
            and 3 <= len(error["code"]) <= 64
            and error["code"].replace("_", "A").isascii()
            and error["code"].replace("_", "A").isalnum()
            and error["code"].upper() == error["code"]
            and error["code"][0].isalpha()
            for error in errors
        )
    )
    assert is_registry_answer(status, {}, json.dumps(document).encode()) is expected
    assert is_registry_answer(200, {}, json.dumps(document).encode()) is False


# --- servers


@pytest.mark.parametrize("tls", [False, True], ids=["clear text", "TLS"])
@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        pytest.param(REGISTRY, True, id="registry"),
        pytest.param(
            answers("200 OK", b"", "docker-distribution-api-version: registry/2.0"), True, id="old header"
        ),
        pytest.param(answers("401 Unauthorized", UNAUTHORIZED), True, id="error document"),
        pytest.param(WEBSITE, False, id="website"),
        pytest.param(
            answers("404 Not Found", b'{"message":"no"}', "Content-Type: application/json"), False, id="JSON"
        ),
        pytest.param(answers("301 Moved", b"", "Location: http://127.0.0.1:1/v2/"), False, id="elsewhere"),
        pytest.param(answers("204 No Content"), False, id="nothing to say"),
        pytest.param(answers("500 Oh\r\nA: " + "x" * 1000), False, id="error"),
    ],
)
def test_server(handler: Handler, expected: bool, tls: bool) -> None:
    with Server(handler, tls) as server:
        assert ask(LOOPBACK, server.port, "registry.example") is expected
        (request,) = server.requests
        assert request.startswith("GET /v2/ HTTP/1.1\r\n")
        assert f"\r\nHost: registry.example:{server.port}\r\n" in request
        assert "Authorization" not in request
        # TLS is tried first, and a server in clear text does not understand that.
        assert server.connections == (1 if tls else 2)
        assert server.server_names == (["registry.example"] if tls else [])


def test_without_a_name() -> None:
    with Server(REGISTRY, tls=True) as server:
        assert ask(LOOPBACK, server.port, None) is True
        assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in server.requests[0]
        assert server.server_names == [None]


def test_over_ipv6() -> None:
    try:
        server = Server(REGISTRY, address="::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        assert ask(server.address, server.port, None) is True
        assert f"\r\nHost: [::1]:{server.port}\r\n" in server.requests[0]


@pytest.mark.parametrize(
    ("name", "port", "host"),
    [
        ("a.example", 443, "a.example"),
        ("a.example", 80, "a.example"),
        ("a.example", 5000, "a.example:5000"),
        (None, 443, "127.0.0.1"),
    ],
)
def test_the_usual_ports_are_not_in_the_host_header(name: str | None, port: int, host: str) -> None:
    assert ping._host(LOOPBACK, port, name) == host


@pytest.mark.parametrize("clear", [True, False])
def test_on_ports_of_clear_text_that_is_tried_first(clear: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(REGISTRY) as server:
        monkeypatch.setattr(ping, "_CLEAR_PORTS", {server.port} if clear else set())
        assert ask(LOOPBACK, server.port, "a.example") is True
        assert server.connections == (1 if clear else 2)


def test_tls_on_a_port_of_clear_text(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(REGISTRY, tls=True) as server:
        monkeypatch.setattr(ping, "_CLEAR_PORTS", {server.port})
        assert ask(LOOPBACK, server.port, "a.example") is True


def test_complaint_about_clear_text_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of web servers on their ports for TLS: that says nothing of what is behind it."""
    complaint = answers("400 Bad Request", b"The plain HTTP request was sent to HTTPS port")
    with Server(complaint) as server:
        monkeypatch.setattr(ping, "_CLEAR_PORTS", {server.port})
        assert ask(LOOPBACK, server.port, "a.example") is None
        assert server.connections == 2


@pytest.mark.parametrize(
    "name", ["a" * 70 + ".example", "a b.example", "a\r\nX: y", "\x01", ".", "", "\xe4.example"]
)
@pytest.mark.parametrize("tls", [False, True], ids=["clear text", "TLS"])
def test_names_that_are_none(name: str, tls: bool) -> None:
    """Whatever stands in a DNS reply: nothing of it gets into the request, which is for the address then."""
    with Server(REGISTRY, tls) as server:
        assert ask(LOOPBACK, server.port, name) is True
        (request,) = server.requests
        assert f"\r\nHost: 127.0.0.1:{server.port}\r\n" in request
        assert "X: y" not in request


def test_sockets_are_prepared_before_they_connect() -> None:
    seen: list[int] = []

    def prepare(item: socket.socket) -> None:
        with pytest.raises(OSError):
            item.getpeername()
        seen.append(item.fileno())

    with Server(REGISTRY) as server:
        assert ask(LOOPBACK, server.port, "a.example", prepare) is True
    assert len(seen) == 2


def test_socket_that_cannot_be_prepared() -> None:
    def fail(_: socket.socket) -> None:
        raise OSError("the map is full")

    with Server(REGISTRY) as server:
        assert ask(LOOPBACK, server.port, "a.example", fail) is None
        assert server.connections == 0


# --- those who mean no good


def test_closed_port() -> None:
    started = time.monotonic()
    assert ask(LOOPBACK, closed_port(), "a.example") is None
    assert time.monotonic() - started < 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less patience, where how much there is does not matter."""
    monkeypatch.setattr(ping, "_SECONDS", 0.5)


def in_time(server: Server, seconds: float = 2.0) -> bool | None:
    started = time.monotonic()
    found = ask(LOOPBACK, server.port, "a.example")
    assert time.monotonic() - started < seconds
    return found


def endlessly(begin: bytes, more: bytes, pause: float, tls: bool) -> Callable[[], Server]:
    def make() -> Server:
        def handle(connection: socket.socket) -> None:
            connection.sendall(begin)
            server.until_stopped(lambda: connection.sendall(more), pause)

        server = Server(handle, tls)
        return server

    return make


HEAD = b"HTTP/1.1 200 OK\r\n"
VERSION_LINE = b"Docker-Distribution-Api-Version: registry/2.0\r\n\r\n"


@pytest.mark.parametrize("tls", [False, True], ids=["clear text", "TLS"])
def test_a_byte_a_second(tls: bool) -> None:
    """No byte comes too late, and all of them do."""
    with endlessly(HEAD + b"\r\n", b" ", 1.0, tls)() as server:
        assert in_time(server, AT_MOST) is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("tls", [False, True], ids=["clear text", "TLS"])
@pytest.mark.parametrize(
    ("begin", "more", "pause", "expected"),
    [
        pytest.param(b"", b"H", 0.1, None, id="slowly"),
        pytest.param(HEAD, b"X", 0.1, None, id="a header slowly"),
        pytest.param(HEAD + b"\r\n", b" ", 0.1, None, id="a body slowly"),
        pytest.param(HEAD + VERSION_LINE, b"X", 0.1, True, id="a registry slowly"),
        pytest.param(HEAD, b"X: y\r\n", 0.0, None, id="headers without end"),
        pytest.param(HEAD + b"X: ", b"y" * 1000, 0.0, None, id="a header without end"),
        pytest.param(HEAD + b"\r\n", b" " * 1000, 0.0, False, id="a body without end"),
        pytest.param(HEAD + b"Content-Length: 9999999999\r\n\r\n", b"{" * 1000, 0.0, False, id="long body"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
            b"3E8\r\n" + b"x" * 1000 + b"\r\n",
            0.0,
            False,
            id="chunks without end",
        ),
        pytest.param(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.0, None, id="continue without end"),
    ],
)
def test_endless_answers(begin: bytes, more: bytes, pause: float, expected: bool | None, tls: bool) -> None:
    with endlessly(begin, more, pause, tls)() as server:
        assert in_time(server) is expected


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("tls", [False, True], ids=["clear text", "TLS"])
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00" + b"\xff" * 512,  # a record of TLS
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 x OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
    ],
)
def test_garbage(answer: bytes, tls: bool) -> None:
    with Server(lambda connection: connection.sendall(answer), tls) as server:
        assert in_time(server) in (None, False)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("tls", [False, True], ids=["clear text", "TLS"])
def test_silence(tls: bool) -> None:
    with endlessly(b"", b"", 0.05, tls)() as server:
        assert in_time(server) is None
        assert server.requests


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "more", [b"", b"\x16", b"\x16\x03\x03\x00\x7a\x02"], ids=["nothing", "a byte", "some"]
)
def test_handshake_that_does_not_end(more: bytes) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        done = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for position in range(len(more)):
                    connection.sendall(more[position : position + 1])
                    time.sleep(0.1)
                done.wait(10)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        started = time.monotonic()
        assert ask(LOOPBACK, listener.getsockname()[1], "a.example") is None
        assert 0.4 < time.monotonic() - started < 2
        done.set()
        thread.join(10)

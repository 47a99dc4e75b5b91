"""Requests are read within bounds, and answered as registries answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.responder import http
from ram_ebpf.responder.http import MOST_HEAD, Request, RequestError, read_request

HEAD = b"GET /v2/ HTTP/1.1\r\nHost: evil.example:5000\r\nUser-Agent: libpod/4.3.1\r\n\r\n"


def request(method: str = "GET", target: str = "/v2/", agent: str = "", **fields: bool) -> Request:
    values = {"logs_in": False, "ends": False, **fields}
    return Request(method, target, "evil.example", agent, **values)


def test_every_beginning_of_it() -> None:
    for end in range(4, len(HEAD)):
        assert read_request(HEAD[:end]) is None
    assert read_request(HEAD + b"rest") == (request(agent="libpod/4.3.1"), len(HEAD))


@pytest.mark.parametrize(
    ("field", "host"),
    [
        (b"Host: evil.example", "evil.example"),
        (b"hOST:evil.example:443", "evil.example"),
        (b"Host: [2001:db8::1]:5000", "2001:db8::1"),
        (b"Host: 10.0.0.1:5000", "10.0.0.1"),
        (b"Host: evil.example/path", None),
        (b"Host: e\xe4.example", None),
        (b"Host:", None),
        (b"X: y", None),
    ],
)
def test_hosts(field: bytes, host: str | None) -> None:
    found = read_request(b"GET / HTTP/1.1\r\n" + field + b"\r\n\r\n")
    assert found is not None
    assert found[0].host == host


@pytest.mark.parametrize(
    ("fields", "ends"),
    [
        (b"", False),
        (b"Content-Length: 0\r\n", False),
        (b"Content-Length: 5\r\n", True),
        (b"Transfer-Encoding: chunked\r\n", True),
        (b"Connection: close\r\n", True),
    ],
)
def test_what_is_not_read_to_its_end_is_the_last(fields: bytes, ends: bool) -> None:
    found = read_request(b"PUT /x HTTP/1.1\r\n" + fields + b"\r\n")
    assert found is not None
    assert found[0].ends is ends


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00",
        b"SSH-2.0 client\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno field\r\n\r\n",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"G" * 33,
        b"GET /" + b"a" * MOST_HEAD,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4000,
    ],
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(RequestError):
        read_request(data)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    for start in (b"", b"GET / HTTP/1.1\r\n"):
        try:
            read_request(start + data)
        except RequestError:
            continue


@pytest.mark.parametrize(
    ("agent", "target", "logs_in", "passes"),
    [
        ("libpod/4.3.1", "/v2/", False, True),
        ("Buildah/1.28.2", "/v2/", False, True),
        ("skopeo/1.9.3", "/v2", False, True),
        ("containers/5.24 (github.com/containers/image)", "/v2/", False, True),
        ("libpod/4.3.1", "/v2/", True, False),
        ("libpod/4.3.1", "/v2/lab/hello/manifests/1", False, False),
        ("docker/28.5.2 go/go1.24", "/v2/", False, False),
        ("containerd/1.6.20", "/v2/", False, False),
        ("", "/v2/", False, False),
    ],
)
def test_version_checks(agent: str, target: str, logs_in: bool, passes: bool) -> None:
    assert http.passes(request("GET", target, agent, logs_in=logs_in)) is passes
    assert not http.passes(request("HEAD", target, agent))


def test_answers() -> None:
    head, _, body = http.refused(request(), "Blocked. Ask é", {"host": "h"}).partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 403 Blocked. Ask e?"
    assert b"Content-Type: application/json" in lines
    assert f"Content-Length: {len(body)}".encode() in lines
    assert b"Connection: keep-alive" in lines
    assert json.loads(body)["errors"][0]["message"] == "Blocked. Ask é"
    assert b"Connection: close" in http.refused(request(ends=True), "x", {})
    assert http.refused(request("HEAD"), "x", {}).endswith(b"\r\n\r\n")
    assert b'\r\nWWW-Authenticate: Basic realm="refused"\r\n' in http.passed(request())

"""What an engine asks, as it writes it."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.authorization.messages import ApiRequest, MessageError, answer, read_request

ASKED = {
    "User": "alice",
    "UserAuthNMethod": "TLS",
    "RequestMethod": "POST",
    "RequestUri": "/v1.41/containers/create",
    "RequestBody": base64.b64encode(b"{}").decode(),
    "RequestHeaders": {"Content-Type": "application/json"},
}


def test_request() -> None:
    found = read_request(json.dumps(ASKED).encode())
    headers = {"content-type": "application/json"}
    assert found == ApiRequest("POST", "/v1.41/containers/create", headers, b"{}", "alice")


def test_least() -> None:
    found = read_request(b'{"RequestMethod": "GET", "RequestUri": "/_ping", "RequestHeaders": null}')
    assert found == ApiRequest("GET", "/_ping")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        json.dumps({**ASKED, "RequestUri": 1}).encode(),
        json.dumps({**ASKED, "RequestMethod": None}).encode(),
        json.dumps({**ASKED, "RequestBody": "%"}).encode(),
        json.dumps({**ASKED, "RequestBody": "\u00e9"}).encode(),
        json.dumps({**ASKED, "RequestBody": [1]}).encode(),
        json.dumps({**ASKED, "RequestHeaders": [1]}).encode(),
        json.dumps({**ASKED, "RequestHeaders": {"a": ["b"]}}).encode(),
        json.dumps({**ASKED, "User": 5}).encode(),
    ],
)
def test_refused(data: bytes) -> None:
    with pytest.raises(MessageError):
        read_request(data)


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(MessageError):
        read_request(data)


def test_answer() -> None:
    assert json.loads(answer(True)) == {"Allow": True}
    assert json.loads(answer(False, "no")) == {"Allow": False, "Msg": "no"}

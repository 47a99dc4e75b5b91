"""What Docker Engine asks of an authorization plugin, and what it is answered.

https://docs.docker.com/engine/extend/plugins_authorization/ and moby, pkg/authorization/api.go. The engine
sends a body only of type application/json and below 1 MiB, none for /auth, and of headers that came several
times the last.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class MessageError(ValueError):
    """Not what an engine sends; str() says why."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """A request to Docker's API."""

    method: str
    target: str
    """As it stood in the request's first line."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""
    body: bytes | None = None
    """None where the engine did not pass it on, or there was none."""
    user: str | None = None
    """The common name of the client's certificate, if it has shown one."""


def read_request(data: bytes) -> ApiRequest:
    """The request of AuthZPlugin.AuthZReq. Raises MessageError."""
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MessageError("it is no JSON") from None
    if not isinstance(value, dict):
        raise MessageError("it is no JSON object")
    headers = value.get("RequestHeaders") or {}
    if not isinstance(headers, dict):
        raise MessageError("RequestHeaders is no object")
    lowered = {str(name).lower(): _text(content, "a header") for name, content in headers.items()}
    return ApiRequest(
        method=_text(value.get("RequestMethod"), "RequestMethod"),
        target=_text(value.get("RequestUri"), "RequestUri"),
        headers=lowered,
        body=_body(value.get("RequestBody")),
        user=_text(value.get("User") or "", "User") or None,
    )


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise MessageError(f"{name} is no text")
    return value


def _body(value: Any) -> bytes | None:
    if not value:
        return None
    try:
        return base64.b64decode(_text(value, "RequestBody"), validate=True)
    except (binascii.Error, ValueError):
        raise MessageError("RequestBody is no base64") from None


def answer(allow: bool, message: str = "") -> bytes:
    """The answer to AuthZPlugin.AuthZReq and AuthZRes."""
    return json.dumps({"Allow": allow, **({"Msg": message} if message else {})}).encode()


ACTIVATION = json.dumps({"Implements": ["authz"]}).encode()
"""The answer to Plugin.Activate."""

"""Enough of HTTP/1.1 (RFC 9112) to tell a registry's client that it is refused. Written by strangers, and
bounded: a head of at most MOST_HEAD bytes, and no body is ever read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ram_ebpf.responder.wording import oci_document, reason_phrase

MOST_HEAD = 16384
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}")  # RFC 9110 5.6.2
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::[0-9]{1,5})?")
_VERSION_CHECK = re.compile(r"/v2/?(?:\?.*)?")
# They print what a manifest's refusal says, and not what that of the version check says (podman 4.3, skopeo
# 1.9, buildah 1.28): "OCI distribution specification", endpoint end-1.
_SILENT_AT_VERSION_CHECK = re.compile(r"(?:libpod|podman|buildah|skopeo|containers|cri-o)/", re.IGNORECASE)


class RequestError(ValueError):
    """The bytes are no request."""


@dataclass(frozen=True)
class Request:
    """The head of one. `host`: without its port, or None; `logs_in`: it carries credentials; `ends`: nothing
    more is to be read after it."""

    method: str
    target: str
    host: str | None
    agent: str
    logs_in: bool
    ends: bool

    @property
    def is_version_check(self) -> bool:
        """Whether it only asks if a registry is there."""
        return self.method == "GET" and _VERSION_CHECK.fullmatch(self.target) is not None


def read_request(data: bytes) -> tuple[Request, int] | None:
    """The first request and how many bytes it takes; None when more are needed. Raises RequestError."""
    end = data.find(b"\r\n\r\n", 0, MOST_HEAD)
    first = data[:MOST_HEAD].split(b"\r\n", 1)[0]
    if not _METHOD.fullmatch(first.split(b" ", 1)[0]):
        raise RequestError("no method of HTTP")
    if end < 0:
        if len(data) >= MOST_HEAD:
            raise RequestError(f"a head of more than {MOST_HEAD} bytes")
        return None
    lines = data[:end].split(b"\r\n")
    words = lines[0].split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise RequestError("no request line of HTTP/1.1")
    fields = _fields(lines[1:])
    method, target = words[0].decode("ascii"), words[1].decode("latin-1")
    has_body = fields.get("content-length", "0") != "0" or "transfer-encoding" in fields
    closes = "close" in fields.get("connection", "").lower() or words[2] == b"HTTP/1.0"
    logs_in = "authorization" in fields
    agent = fields.get("user-agent", "")
    return Request(method, target, _host(fields), agent, logs_in, has_body or closes), end + 4


def _fields(lines: list[bytes]) -> dict[str, str]:
    """The first of each name."""
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _METHOD.fullmatch(name):
            raise RequestError("a field without a name")
        fields.setdefault(name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1"))
    return fields


def _host(fields: dict[str, str]) -> str | None:
    found = _HOST.fullmatch(fields.get("host", ""))
    return found[1].strip("[]") if found else None


def passes(request: Request) -> bool:
    """Whether a version check gets an answer with which its client goes on, to where it prints refusals.

    One with credentials is a login's, which is not to succeed.
    """
    return (
        request.is_version_check
        and not request.logs_in
        and _SILENT_AT_VERSION_CHECK.match(request.agent) is not None
    )


def _response(status: str, body: bytes, request: Request, *fields: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        *fields,
        "Content-Type: application/json",
        "Docker-Distribution-Api-Version: registry/2.0",
        "Cache-Control: no-store",
        f"Content-Length: {len(body)}",
        f"Connection: {'close' if request.ends else 'keep-alive'}",
    ]
    head = "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"
    return head if request.method == "HEAD" else head + body


def passed(request: Request) -> bytes:
    """401 with a challenge (RFC 7617), for a version check. After a 200, a login would be done without having
    shown its credentials, and report success; what is shown here is not looked at."""
    return _response("401 Unauthorized", b"", request, 'WWW-Authenticate: Basic realm="refused"')


def refused(request: Request, text: str, detail: dict[str, Any]) -> bytes:
    """403 with the text as an OCI error document and as the reason phrase."""
    return _response(f"403 {reason_phrase(text)}", oci_document(text, detail), request)

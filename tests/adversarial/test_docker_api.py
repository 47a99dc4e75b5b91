"""Who speaks to dockerd's API by hand, to have it do what its authorization plugin would not allow.

Each request is made to an engine that asks nobody first, which must take it for what it is: a pull from the
refused registry. What an engine does not take anyway proves nothing about who stopped it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.docker import Docker
from tests.lab.docker_authorization import ALLOWED, BLOCKED, DENIED, SETTINGS, authorized
from tests.lab.docker_daemon import HostDaemon
from tests.lab.lab import Lab

from .field import wait_line

pytestmark = pytest.mark.root

EVIL = f"{BLOCKED}/lab/hello"
GOOD = f"{ALLOWED}/lab/hello"
FORM = "Content-Type: application/x-www-form-urlencoded"
TEXT = "Content-Type: text/plain"
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
NOTHING = "Content-Length: 0"
_KERNEL = b"connect: operation not permitted"  # of the engine, when it has connected


@pytest.fixture(scope="module")
def both(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Docker, HostDaemon]]:
    with authorized(lab, tmp_path_factory.mktemp("by-hand")) as result:
        yield result


@pytest.fixture(scope="module")
def docker(both: tuple[Docker, HostDaemon]) -> Docker:
    return both[0]


@pytest.fixture(scope="module")
def daemon(both: tuple[Docker, HostDaemon]) -> HostDaemon:
    return both[1]


def request(first: str, *headers: str, body: str = "") -> bytes:
    """One with a body has its length, or is in one chunk."""
    lines = [f"{first} HTTP/1.1", "Host: docker", *headers]
    if CHUNKED in headers:
        body = f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"
    elif body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body]).encode()


def pull(path: str, *headers: str, body: str = "") -> bytes:
    return request(f"POST {path}", *(headers or (NOTHING,)), body=body)


def create(body: str, *headers: str, path: str = "/v1.41/containers/create") -> bytes:
    return request(f"POST {path}", *(headers or (JSON,)), body=body)


CREATE = json.dumps({"Image": f"{EVIL}:1"})
QUERY = f"fromImage={EVIL}&tag=1"
PULLS = {
    "plain": pull(f"/v1.41/images/create?{QUERY}"),
    "no version": pull(f"/images/create?{QUERY}"),
    "strange version": pull(f"/v1.24/images/create?{QUERY}"),
    "escaped path": pull(f"/v1.41/images/%63reate?{QUERY}"),
    "escaped slash": pull(f"/v1.41/images%2Fcreate?{QUERY}"),
    "escaped version": pull(f"/%76%31.41/images/create?{QUERY}"),
    "whole URL": pull(f"http://{ALLOWED}/v1.41/images/create?{QUERY}"),
    "other scheme": pull(f"x:/v1.41/images/create?{QUERY}"),
    "escaped name": pull(f"/v1.41/images/create?from%49mage={EVIL.replace('/', '%2f')}&tag=1"),
    "twice": pull(f"/v1.41/images/create?{QUERY}&fromImage={GOOD}"),
    "colon behind": pull(f"/v1.41/images/create?fromImage={EVIL}:&tag=1"),
    "capital letters": pull(f"/v1.41/images/create?fromImage={EVIL.replace('blocked', 'BLOCKED')}&tag=1"),
    "port": pull(f"/v1.41/images/create?fromImage={BLOCKED}:443/lab/hello&tag=1"),
    "address": pull("/v1.41/images/create?fromImage=10.77.0.30/lab/hello&tag=1"),
    "form": pull(f"/v1.41/images/create?fromImage={GOOD}&tag=1", FORM, body=QUERY),
    "form of two types": pull(f"/v1.41/images/create?fromImage={GOOD}&tag=1", FORM, TEXT, body=QUERY),
    "form in chunks": pull(f"/v1.41/images/create?fromImage={GOOD}&tag=1", FORM, TEXT, CHUNKED, body=QUERY),
    "form that says it is nothing": pull(
        f"/v1.41/images/create?fromImage={GOOD}&tag=1", FORM, TEXT, NOTHING, CHUNKED, body=QUERY
    ),
    "form for an import": pull("/v1.41/images/create?fromSrc=-", FORM, CHUNKED, body=QUERY),
    "distribution": request(f"GET /v1.41/distribution/{EVIL}:1/json"),
    "distribution with an escaped slash": request(f"GET /distribution/{EVIL.replace('/', '%2F')}:1/json"),
}
"""Requests by which an engine that asks nobody pulls, or asks the registry."""

LOCAL = {
    "plain": create(CREATE),
    "small letters": create(CREATE.replace("Image", "image")),
    "a second key": create(f'{{"Image": "{GOOD}:1", "iMAGE": "{EVIL}:1"}}'),
    "escaped key": create(CREATE.replace("Image", "\\u0049mage")),
    "something behind": create(CREATE + "{}"),
    "type with more": create(CREATE, "Content-Type: application/json; charset=utf-8"),
    "in chunks": create(CREATE, JSON, CHUNKED),
    "a path that ends as another": create(CREATE, path="/v1.41/containers/create?name=/auth"),
    "escaped path": create(CREATE, path="/containers/%63reate"),
    "two types": create(CREATE, JSON, TEXT),
}
"""Requests by which an engine that asks nobody makes a container of an image that it has."""

REDIRECTED = {
    "two slashes": f"//v1.41/images/create?{QUERY}",
    "two slashes inside": f"/v1.41/images//create?{QUERY}",
    "dots": f"/v1.41/x/../images/create?{QUERY}",
    "escaped dots": f"/v1.41/x/%2e%2e/images/create?{QUERY}",
    "one dot": f"/v1.41/./images/create?{QUERY}",
}
NO_ROUTE = {
    "slash behind": f"/images/create/?{QUERY}",
    "capital letters": f"/Images/Create?{QUERY}",
    "version twice": f"/v1.41/v1.41/images/create?{QUERY}",
    "escaped twice": f"/images/%2563reate?{QUERY}",
    "no number": f"/vx/images/create?{QUERY}",
}


def ask_nobody(docker: Docker, data: bytes) -> tuple[int, bytes]:
    docker.reload({})
    try:
        return docker.raw(data)
    finally:
        docker.reload(SETTINGS)


def assert_refused(docker: Docker, daemon: HostDaemon, data: bytes) -> None:
    start = len(daemon.lines())
    status, said = docker.raw(data)
    assert status == 403, said
    assert DENIED.encode() in said
    # The kernel's, from before, may be told later.
    line = wait_line(daemon, start, lambda line: "method" in line, "the refusal")
    assert line["reason"] in ("denied-image", "denied-request")


@pytest.mark.parametrize("name", PULLS)
def test_pull(docker: Docker, daemon: HostDaemon, name: str) -> None:
    status, said = ask_nobody(docker, PULLS[name])
    assert _KERNEL in said, (status, said)
    assert_refused(docker, daemon, PULLS[name])


@pytest.mark.parametrize("name", LOCAL)
def test_container(docker: Docker, daemon: HostDaemon, name: str) -> None:
    status, said = ask_nobody(docker, LOCAL[name])
    assert status == 201, said
    assert_refused(docker, daemon, LOCAL[name])


def test_long_body(docker: Docker, daemon: HostDaemon) -> None:
    """An engine does not show one of a mebibyte or more, and would take it."""
    data = create(" " * (1 << 20) + CREATE)
    assert ask_nobody(docker, data)[0] == 201
    assert_refused(docker, daemon, data)


@pytest.mark.parametrize("name", REDIRECTED)
def test_what_is_redirected(docker: Docker, name: str) -> None:
    """The router sends those who write so elsewhere, with or without a plugin, and does nothing."""
    assert ask_nobody(docker, pull(REDIRECTED[name]))[0] == 301


@pytest.mark.parametrize("name", NO_ROUTE)
def test_what_is_no_route(docker: Docker, name: str) -> None:
    assert ask_nobody(docker, pull(NO_ROUTE[name]))[0] == 404


def test_form_of_two_types_for_an_import(docker: Docker) -> None:
    """The one that no plugin can tell from a real import: the engine shows the last type alone, and no body.
    The kernel refuses the connection."""
    data = pull("/v1.41/images/create?fromSrc=-", FORM, TEXT, CHUNKED, body=QUERY)
    status, said = docker.raw(data)
    assert status == 500
    assert _KERNEL in said

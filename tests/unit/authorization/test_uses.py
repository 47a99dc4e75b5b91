"""What requests to Docker's API would do, and which are refused because they may be read in two ways."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.authorization.messages import ApiRequest
from ram_ebpf.authorization.uses import MAX_USES, UnjudgedError, uses_of
from ram_ebpf.policy.actions import Action

JSON = {"content-type": "application/json"}
HEX = "0123456789abcdef" * 4


def uses(method: str, target: str, body: object = None, **headers: str) -> list[tuple[str, str]]:
    """Actions and registries."""
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    _, found = uses_of(ApiRequest(method, target, named or JSON, data))
    return [(use.action.value, str(use.registry)) for use in found]


def create(query: str, **headers: str) -> list[tuple[str, str]]:
    return uses("POST", f"/v1.41/images/create?{query}", **(headers or {"content_length": "0"}))


EVIL = [("pull", "evil.example")]


@pytest.mark.parametrize(
    "query",
    [
        "fromImage=evil.example/x&tag=1",
        "fromImage=evil.example/x:",
        "fromImage=evil.example%2Fx",
        f"fromImage=evil.example/x&tag=sha256%3A{HEX}",
        "fromSrc=evil.example/x.tar",
        "fromSrc=http://evil.example",
        "fromSrc=https%3A%2F%2Fevil.example%2Fx.tar%3Fa%40b",
        "fromSrc=HTTPS://EVIL.example/x.tar",
    ],
)
def test_create_image(query: str) -> None:
    assert create(query) == EVIL


def test_create_image_of_several() -> None:
    """Whichever of them Docker takes."""
    both = [("pull", "good.example"), *EVIL]
    assert create("fromImage=good.example/x&fromImage=evil.example/x") == both
    assert create("fromImage=good.example/x&fromSrc=evil.example/x") == both
    assert create("fromImage=&fromImage=evil.example/x") == EVIL


def test_import_of_a_body() -> None:
    assert create("fromSrc=-&repo=evil.example/x", content_type="text/plain") == []


@pytest.mark.parametrize(
    "headers",
    [
        {"content_length": "0"},
        {"content_length": "0", "content_type": "text/plain"},
        {"content_length": "0", "content_type": "application/x-www-form-urlencoded"},
        {"host": "docker"},  # no type: Docker does not look into a body
    ],
)
def test_no_body(headers: dict[str, str]) -> None:
    assert create("fromImage=evil.example/x", **headers) == EVIL


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (
            "fromImage=good.example/x",
            {"content_type": "application/x-www-form-urlencoded", "content_length": "9"},
        ),
        (
            "fromImage=good.example/x",
            {"content_type": "multipart/form-data; boundary=a", "content_length": "9"},
        ),
        # Of two types, an engine shows the last and reads the first.
        ("fromImage=good.example/x", {"content_type": "text/plain", "content_length": "9"}),
        ("fromImage=good.example/x", {"content_type": "text/plain"}),
        ("fromSrc=good.example/x", {"content_type": "text/plain"}),
        ("fromSrc=-&fromSrc=good.example/x", {"content_type": "text/plain"}),
        ("fromSrc=-", {"content_type": "Application/X-WWW-Form-Urlencoded;a=b", "content_length": "9"}),
        ("fromSrc=-", {"content_type": "multipart/form-data; boundary=a"}),
        ("", {"content_length": "0"}),
        ("fromImage=", {"content_length": "0"}),
        ("tag=1", {"content_length": "0"}),
        ("fromImage=Evil", {"content_length": "0"}),
        ("fromImage=evil.example/x%0a", {"content_length": "0"}),
        ("fromImage=%ff", {"content_length": "0"}),
        ("a;fromImage=evil.example/x", {"content_length": "0"}),
        ("fromSrc=ftp://evil.example/x", {"content_length": "0"}),
        ("fromSrc=http://good.example@evil.example/x", {"content_length": "0"}),
        ("fromSrc=http://good.example\\@evil.example/x", {"content_length": "0"}),
        ("fromSrc=http:evil.example/x", {"content_length": "0"}),
        ("fromSrc=http://evil%252eexample/x", {"content_length": "0"}),
        ("fromSrc=/etc/passwd", {"content_length": "0"}),
        ("fromSrc=http://evil.example%23/x", {"content_length": "0"}),
    ],
)
def test_create_image_unjudged(query: str, headers: dict[str, str]) -> None:
    with pytest.raises(UnjudgedError):
        create(query, **headers)


@pytest.mark.parametrize(
    "path",
    [
        "/v1.41/images/evil.example/a/x/push",
        "/images/evil.example%2Fx/push?tag=1",
        "/images//evil.example/x/push",
        "/images/good.example/../evil.example/x/push",
        "/images/evil.example/x/push/",
    ],
)
def test_push(path: str) -> None:
    assert uses("POST", path) == [("push", "evil.example")]


def test_push_of_an_image_called_create() -> None:
    assert uses("POST", "/images/create/push") == [("push", "docker.io")]


@pytest.mark.parametrize("name", ["", "Evil", "evil.example%252fx", "evil.example/x%00", "evil.example/x%0A"])
def test_push_unjudged(name: str) -> None:
    with pytest.raises(UnjudgedError):
        uses("POST", f"/images/{name or '%2B'}/push")


@pytest.mark.parametrize(
    ("method", "target", "found"),
    [
        ("GET", "/distribution/evil.example/x:1/json", EVIL),
        ("HEAD", "/v1.41/distribution/evil.example/x:1/json", EVIL),
        ("GET", "/images/search?term=evil.example/x", EVIL),
        ("GET", "/images/search?term=nginx&term=evil.example/x", [("pull", "docker.io"), *EVIL]),
        ("GET", "/plugins/privileges?remote=evil.example/x", EVIL),
        ("POST", "/plugins/pull?remote=evil.example/x&name=good.example/x", EVIL),
        ("POST", "/plugins/good.example/x/upgrade?remote=evil.example/x", EVIL),
        ("POST", "/plugins/evil.example/x/push", [("push", "evil.example")]),
        ("POST", "/auth", [("login", "None")]),
        ("POST", f"/build?cachefrom={quote(json.dumps(['evil.example/x', HEX, 'type=gha']))}", EVIL),
        ("POST", "/build?t=evil.example/x&pull=1&remote=https://evil.example/x.git", []),
    ],
)
def test_routes(method: str, target: str, found: list[tuple[str, str]]) -> None:
    assert uses(method, target) == found


@pytest.mark.parametrize(
    "target",
    [
        "/plugins/pull",
        "/plugins/pull?remote=",
        "/plugins/x/upgrade",
        f"/plugins/{HEX}/push",
        "/plugins/a1b2/push",
        "/build?cachefrom=x",
        "/build?cachefrom=[1",
        "/build?cachefrom={}",
        "/build?cachefrom=[%22Evil%22]",
    ],
)
def test_routes_unjudged(target: str) -> None:
    with pytest.raises(UnjudgedError):
        uses("POST", target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/_ping"),
        ("GET", "/v1.41/images/json?a;b=%zz"),
        ("DELETE", "/images/create"),
        ("DELETE", "/images/evil.example/push"),
        ("GET", "/images/evil.example/x/json"),
        ("POST", "/images/evil.example/x/tag?repo=good.example/x"),
        ("POST", "/images/load"),
        ("POST", "/containers/evil.example/start"),
        ("POST", "/session"),
        ("post", "/images/create?fromImage=evil.example/x"),  # no route: methods have their case
        ("POST", "/Images/create?fromImage=evil.example/x"),
    ],
)
def test_what_names_no_registry_passes(method: str, target: str) -> None:
    assert uses(method, target) == []


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"Image": "evil.example/x:1"}, EVIL),
        ({"Image": "good.example/x", "image": "evil.example/x"}, [("pull", "good.example"), *EVIL]),
        ({"Image": f"evil.example/x@sha256:{HEX}"}, EVIL),
        ({"Image": HEX}, []),
        ({"Image": f"sha256:{HEX}"}, []),
        ({"Image": "a1b2c3d4e5f6"}, []),
        ({"Image": "cafe"}, [("pull", "docker.io")]),
        ({"Image": ""}, []),
        ({"HostConfig": {"Mounts": [{"Type": "image", "Source": "evil.example/x"}]}}, EVIL),
        ({"Mounts": [{"type": "IMAGE", "source": "evil.example/x"}]}, EVIL),
        ({"HostConfig": {"Mounts": [{"Type": "bind", "Source": "/evil.example/X"}, None]}}, []),
        ({"HostConfig": None}, []),
    ],
)
def test_create_container(body: object, found: list[tuple[str, str]]) -> None:
    assert uses("POST", "/v1.41/containers/create?name=a", body) == found


@pytest.mark.parametrize("path", ["/services/create", "/services/a1b2/update?version=1"])
@pytest.mark.parametrize(
    ("task", "found"),
    [
        ({"ContainerSpec": {"Image": "evil.example/x"}}, EVIL),
        ({"ContainerSpec": {"Mounts": [{"Type": "image", "Source": "evil.example/x"}]}}, EVIL),
        ({"PluginSpec": {"remote": "evil.example/x"}}, EVIL),
        ({"NetworkAttachmentSpec": {}}, []),
    ],
)
def test_services(path: str, task: object, found: list[tuple[str, str]]) -> None:
    assert uses("POST", path, {"Name": "a", "TaskTemplate": task}) == found


@pytest.mark.parametrize(
    "target",
    ["/containers/create", "/services/create", "/services/a/update", "/v1.41/containers/create?name=/auth"],
)
@pytest.mark.parametrize("data", [None, b"", b"{", b'{"Image": "good.example/x"}{}', b"[]", b"\xff"])
def test_bodies_unjudged(target: str, data: bytes | None) -> None:
    """None: too long, or of another type, and the engine did not show it."""
    with pytest.raises(UnjudgedError):
        uses_of(ApiRequest("POST", target, JSON, data))


@pytest.mark.parametrize(
    ("server", "registry"),
    [
        ("evil.example", "evil.example"),
        ("https://evil.example:5000/v2/", "evil.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("", "docker.io"),
    ],
)
def test_login_whose_server_is_shown(server: str, registry: str) -> None:
    assert uses("POST", "/v1.41/auth", {"username": "a", "password": "b", "serveraddress": server}) == [
        ("login", registry)
    ]


def test_no_secret_in_what_is_said() -> None:
    with pytest.raises(UnjudgedError) as caught:
        uses("POST", "/auth", {"password": "secret", "serveraddress": ["secret"]})
    assert "secret" not in str(caught.value)


def test_many() -> None:
    images = json.dumps(["a"] * (MAX_USES + 1))
    with pytest.raises(UnjudgedError):
        uses("POST", f"/build?cachefrom={quote(images)}")


@pytest.mark.parametrize("target", ["", "*", "/%", "images/create"])
def test_no_target(target: str) -> None:
    with pytest.raises(UnjudgedError):
        uses("POST", target)


_WORDS = "/ // .. . v1.41 images create %2F %2e%2e push evil.example x ? & http: %63reate % ; tag=1"
_PIECES = st.lists(st.sampled_from([*_WORDS.split(), "fromImage=evil.example/x"]), max_size=12)


@given(_PIECES, st.sampled_from(["GET", "POST"]))
def test_any_target(pieces: list[str], method: str) -> None:
    try:
        _, found = uses_of(ApiRequest(method, "".join(pieces), {"content-length": "0"}))
    except UnjudgedError:
        return
    assert all(use.action in (Action.PULL, Action.PUSH) for use in found)

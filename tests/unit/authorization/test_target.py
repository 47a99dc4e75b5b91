"""Request targets, as Docker's router reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.authorization.target import MAX_PARAMETERS, MAX_TARGET, TargetError, read_target


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/images/create", "/images/create"),
        ("/v1.41/images/create", "/images/create"),
        ("/v1/images/create", "/images/create"),
        ("/v9.9.9.9/images/create", "/images/create"),
        ("/v1.41/v1.41/images/create", "/v1.41/images/create"),
        ("/vx/images/create", "/vx/images/create"),
        ("/images/%63reate", "/images/create"),
        ("/v1%2E41/images%2Fcreate", "/images/create"),
        ("/images/%2563reate", "/images/%63reate"),
        ("//v1.41//images///create", "/images/create"),
        ("/v1.41/x/../images/./create/", "/images/create"),
        ("/../../images/create", "/images/create"),
        ("/x/%2e%2e/images/create", "/images/create"),
        ("http://docker/v1.41/images/create", "/images/create"),
        ("http://evil.example:80/images/create", "/images/create"),
        ("foo:/images/create", "/images/create"),
        ("foo:///images/create", "/images/create"),
        ("http://docker", "/"),
        ("//images/create", "/images/create"),
        ("/images/a+b/push", "/images/a+b/push"),
        ("/images/create#x", "/images/create#x"),
        ("/", "/"),
    ],
)
def test_path(text: str, path: str) -> None:
    assert read_target(text).path == path
    assert read_target(text + "?fromImage=/x").path == path


@pytest.mark.parametrize(
    "text", ["", "*", "images/create", "foo:bar", "/%", "/%zz", "/a%2", "/%ff", "/" * (MAX_TARGET + 1)]
)
def test_no_path(text: str) -> None:
    with pytest.raises(TargetError):
        read_target(text)


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("fromImage=a", ["a"]),
        ("from%49mage=%61", ["a"]),
        ("fromImage=a&fromImage=b", ["a", "b"]),
        ("fromImage=&fromImage=b", ["b"]),
        ("fromImage", []),
        ("fromimage=a", []),
        ("fromImage=a?b=c", ["a?b=c"]),
        ("fromImage=a=b", ["a=b"]),
        ("fromImage=a+b%2Bc", ["a b+c"]),
        ("x=%26fromImage=b", []),
        ("&&fromImage=a&", ["a"]),
    ],
)
def test_values(query: str, values: list[str]) -> None:
    assert read_target(f"/images/create?{query}").values("fromImage") == values


@pytest.mark.parametrize(
    "query",
    ["a;fromImage=b", "fromImage=%", "fromImage=%f", "%zz=1", "fromImage=%ff", "&" * (MAX_PARAMETERS + 1)],
)
def test_no_values(query: str) -> None:
    with pytest.raises(TargetError):
        read_target(f"/images/create?{query}").values("fromImage")


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    try:
        target = read_target(text)
        target.values("a")
    except TargetError:
        return
    assert target.path.startswith("/")
    assert ".." not in target.path.split("/")

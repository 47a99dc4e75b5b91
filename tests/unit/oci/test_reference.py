"""Which registry the name of an image is for."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.oci.reference import (
    DOCKER_HUB,
    HUB_HOST,
    MAX_REFERENCE,
    ImageNameError,
    Registry,
    is_identifier,
    registry_of,
    registry_of_domain,
    registry_of_search,
)

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ubuntu", "docker.io", None),
        ("ubuntu:22.04", "docker.io", None),
        ("ubuntu:5000", "docker.io", None),
        ("library/ubuntu", "docker.io", None),
        ("team/app:1", "docker.io", None),
        ("docker.io/ubuntu", "docker.io", None),
        ("index.docker.io/library/ubuntu", "docker.io", None),
        ("registry-1.docker.io/library/ubuntu", "registry-1.docker.io", None),
        ("evil.example", "docker.io", None),  # a name with a dot, without a slash
        ("evil.example:5000", "docker.io", None),
        ("evil.example/x", "evil.example", None),
        ("Evil.EXAMPLE/x", "evil.example", None),
        ("EVIL/x", "evil", None),  # a host since reference 0.5, and no name of an image before
        ("evil.example:5000/a/b/c:1", "evil.example", 5000),
        ("evil.example:0443/x", "evil.example", 443),
        ("localhost/x", "localhost", None),
        ("localhost:5000/x", "localhost", 5000),
        ("evil:5000/x", "evil", 5000),
        ("docker.io:443/x", "docker.io", 443),
        ("10.20.0.7:5000/x", "10.20.0.7", 5000),
        ("[::1]:5000/x", "::1", 5000),
        ("[2001:DB8::0:1]/x", "2001:db8::1", None),
        (f"evil.example/x@sha256:{HEX}", "evil.example", None),
        (f"evil.example/x:1@sha256:{HEX}", "evil.example", None),
        (f"x@sha256:{HEX}", "docker.io", None),
        (f"sha256:{HEX}", "docker.io", None),  # what else it may be is for is_identifier to say
        ("a-b.example/x__y.z-w/v", "a-b.example", None),
    ],
)
def test_registry(text: str, host: str, port: int | None) -> None:
    found = registry_of(text)
    assert (found.host, found.port) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/x",
        "x/",
        "x//y",
        "Ubuntu",
        "evil.example/X",
        "evil.example/",
        "evil.example//x",
        "evil.example/x y",
        "evil.example/x\n",
        "evil.example\n/x",
        " evil.example/x",
        "evil.example./x",
        ".evil.example/x",
        "-evil.example/x",
        "evil.example:/x",
        "evil.example:99999/x",
        "evil.example:0/x",
        "user@evil.example/x",
        "https://evil.example/x",
        "evil.example/x@sha256:00",
        "evil.example/x:",
        "evil.example/../good.example/x",
        "evil%2eexample/x",
        "\uff45vil.example/x",
        "[::1/x",
        "[::g]/x",
        "[:::]/x",
        "[fe80::1%eth0]/x",
        "[::ffff:10.0.0.1]/x",
        "evil.example/x:" + "a" * 129,
        "a" * (MAX_REFERENCE + 1),
        "a-" * 500 + "/x",
        ("a" * 60 + ".") * 16 + "/x",
    ],
)
def test_no_reference(text: str) -> None:
    with pytest.raises(ImageNameError):
        registry_of(text)


def test_where_it_connects() -> None:
    for text in ("x", "docker.io/x", "index.docker.io/a/x"):
        assert registry_of(text) == DOCKER_HUB
        assert registry_of(text).contact == HUB_HOST
    assert registry_of("ghcr.io/x").contact == "ghcr.io"


@pytest.mark.parametrize(
    "text", ["DOCKER.IO/x", "Index.docker.io/x", "docker.io:443/x", "docker.io.evil.example/x"]
)
def test_hosts_that_look_like_the_hub(text: str) -> None:
    """Docker compares as it is written, and connects to such a host."""
    assert registry_of(text) != DOCKER_HUB
    assert registry_of(text).contact != HUB_HOST


def test_addresses() -> None:
    assert registry_of("10.0.0.1:5000/x").address == ipaddress.ip_address("10.0.0.1")
    assert registry_of("[fd00::1]/x").address == ipaddress.ip_address("fd00::1")
    # Go connects to the IPv4 address.
    assert registry_of("[::ffff:a00:1]/x").address == ipaddress.ip_address("10.0.0.1")
    assert registry_of("10.0.0/x").address is None
    assert registry_of("0x0a.0.0.1/x").address is None


def test_as_text() -> None:
    for text in ("evil.example", "evil.example:5000", "[::1]:5000", "[::1]", "docker.io"):
        assert str(registry_of(f"{text}/a/x")) == text


@pytest.mark.parametrize("text", ["a1b2c3d4e5f6", HEX, f"sha256:{HEX}", "sha256:a1b2"])
def test_identifiers(text: str) -> None:
    assert is_identifier(text)


@pytest.mark.parametrize(
    "text", ["cafe", "A1B2C3D4E5F6", HEX + "0", "a1b2c3d4e5f6:1", "x/a1b2c3d4e5f6", "sha256:", "g" * 12]
)
def test_no_identifiers(text: str) -> None:
    assert not is_identifier(text)


def test_search() -> None:
    assert registry_of_search("evil.example/x") == Registry("evil.example")
    assert registry_of_search("localhost/x") == Registry("localhost")
    for term in ("nginx", "two words", "team/nginx", "evil.example", "Team/x"):
        assert registry_of_search(term) == DOCKER_HUB
    with pytest.raises(ImageNameError):
        registry_of_search("https://evil.example/x")


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    for read in (registry_of, registry_of_domain, registry_of_search):
        try:
            registry = read(text)
        except ImageNameError:
            continue
        assert registry.host
        assert registry.host.isascii()
        assert registry.host == registry.host.lower()

"""The list of resolvers that speak DNS over HTTPS is complete in itself, and answers as it should."""

from __future__ import annotations

import ipaddress
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ram_ebpf.dns.encrypted import EncryptedResolvers, load_encrypted_resolvers
from ram_ebpf.policy.document import read_document

ip = ipaddress.ip_address


def test_each_is_dated_and_sourced() -> None:
    for endpoint in load_encrypted_resolvers().endpoints():
        assert endpoint.date.year >= 2026
        assert endpoint.source.startswith("unconfirmed: ") or "unconfirmed" not in endpoint.source


def test_the_file_has_no_repeated_key() -> None:
    data = resources.files("ram_ebpf.dns").joinpath("data/encrypted.yaml").read_bytes()
    assert read_document(data, "encrypted.yaml").errors == []


def test_the_file_lies_in_the_package() -> None:
    """Where the wheel takes it from: pyproject.toml names the package, and .gitignore none of its files."""
    root = Path(__file__).resolve().parents[3]
    assert (root / "ram_ebpf" / "dns" / "data" / "encrypted.yaml").is_file()
    ignored = (root / ".gitignore").read_text(encoding="utf-8").split()
    assert not {"data", "data/", "*.yaml"} & set(ignored)


def test_loaded_once() -> None:
    assert load_encrypted_resolvers() is load_encrypted_resolvers()


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "1.0.0.3",
        "2606:4700:4700::1112",
        "8.8.8.8",
        "8.8.4.4",
        "2001:4860:4860::8844",
        "9.9.9.9",
        "149.112.112.112",
        "208.67.222.222",
        "94.140.14.14",
        "185.228.168.9",
        "45.90.28.0",
        "194.242.2.2",
        "76.76.2.11",
        "185.222.222.222",
        "223.5.5.5",
        "1.12.12.12",
    ],
)
def test_addresses(address: str) -> None:
    assert ip(address) in load_encrypted_resolvers().known.addresses


def test_every_address_is_a_public_one() -> None:
    """So no rule for a host of one's own can meet one."""
    assert all(address.is_global for address in load_encrypted_resolvers().known.addresses)
    assert ip("1.1.1.4") not in load_encrypted_resolvers().known.addresses


@pytest.mark.parametrize(
    "name",
    [
        "cloudflare-dns.com",
        "mozilla.cloudflare-dns.com",
        "chrome.cloudflare-dns.com",
        "security.cloudflare-dns.com",
        "family.cloudflare-dns.com",
        "one.one.one.one",
        "9y65g5srsm.cloudflare-gateway.com",
        "dns.google",
        "DNS.Google",
        "dns.google.",
        "dns64.dns.google",
        "dns.quad9.net",
        "dns11.quad9.net",
        "doh.opendns.com",
        "doh.familyshield.opendns.com",
        "dns.adguard-dns.com",
        "1a2b3c4d.d.adguard-dns.com",
        "doh.cleanbrowsing.org",
        "dns.nextdns.io",
        "abc123.dns.nextdns.io",
        "adblock.dns.mullvad.net",
        "p2.freedns.controld.com",
        "de-fra.doh.sb",
        "doh.dns.sb",
        "dns.alidns.com",
        "9999.alidns.com",
        "doh.pub",
        "_x\\000.dns.google",
    ],
)
def test_serves(name: str) -> None:
    assert load_encrypted_resolvers().known.serves(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "com",
        "one",
        "one.one.one",
        "google",
        "xdns.google",
        "dns.google.example",
        "dns.google..",
        "www.google.com",
        "cloudflare.com",
        "production.cloudflare.docker.com",
        "opendns.com",
        "www.quad9.net",
        "nextdns.io",
        "adguard-dns.com",
        "registry-1.docker.io",
        "ghcr.io",
    ],
)
def test_does_not_serve(name: str) -> None:
    assert not load_encrypted_resolvers().known.serves(name)


def test_only_ascii_letters_have_case() -> None:
    """str.lower() makes a k of U+212A, which no DNS name has."""
    assert load_encrypted_resolvers().known.serves("dns.mullvad.net")
    given = {"providers": [{**PROVIDER, "endpoints": [{**ENDPOINT, "names": ["k.example"]}]}]}
    resolvers = EncryptedResolvers.model_validate(given).known
    assert resolvers.serves("K.EXAMPLE")
    assert not resolvers.serves("\u212a.example")


@given(st.text())
def test_any_text(name: str) -> None:
    resolvers = load_encrypted_resolvers().known
    resolvers.serves(name)
    assert resolvers.serves(f"{name}.dns.google")


ENDPOINT: dict[str, Any] = {"names": ["dns.example"], "source": "dns.example/help", "date": "2026-11-25"}
PROVIDER: dict[str, Any] = {"id": "example", "title": "Example", "endpoints": [ENDPOINT]}


@pytest.mark.parametrize(
    "changes",
    [
        {"names": []},
        {"names": ["*.dns.example"]},
        {"names": ["dns example"]},
        {"names": ["dns.example", "DNS.example"]},
        {"addresses": []},
        {"addresses": ["192.0.2.256"]},
        {"addresses": ["::ffff:192.0.2.1"]},
        {"addresses": ["192.0.2.1", "192.0.2.1"]},
        {"addresses": ["2001:db8::1", "2001:db8:0::1"]},
        {"source": ""},
        {"date": "25.11.2026"},
        {"date": 20261125},
        {"port": 443},
    ],
)
def test_mistakes_in_the_file_are_refused(changes: dict[str, Any]) -> None:
    EncryptedResolvers.model_validate({"providers": [PROVIDER]})
    with pytest.raises(ValidationError):
        EncryptedResolvers.model_validate(
            {"providers": [{**PROVIDER, "endpoints": [{**ENDPOINT, **changes}]}]}
        )


def test_ids_are_given_once() -> None:
    with pytest.raises(ValidationError):
        EncryptedResolvers.model_validate({"providers": [PROVIDER, PROVIDER]})

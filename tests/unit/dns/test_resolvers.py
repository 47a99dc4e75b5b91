"""resolv.conf, systemd-resolved and this host's own addresses."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns import resolvers
from ram_ebpf.dns.resolvers import (
    auto_resolvers,
    configured_resolvers,
    parse_nameservers,
    parse_words,
    resolvers_of,
)
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.model import Resolver

ip = ipaddress.ip_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("nameserver 10.0.0.53\n", ["10.0.0.53"]),
        ("nameserver 10.0.0.53", ["10.0.0.53"]),  # no newline at the end
        ("nameserver 10.0.0.2\nnameserver 10.0.0.1\n", ["10.0.0.2", "10.0.0.1"]),
        ("nameserver\t10.0.0.53\t\n", ["10.0.0.53"]),
        ("nameserver \t 10.0.0.53   \n", ["10.0.0.53"]),
        ("nameserver 10.0.0.1\r\nnameserver 10.0.0.2\r\n", ["10.0.0.1", "10.0.0.2"]),
        ("nameserver 2001:DB8::53\n", ["2001:db8::53"]),
        ("nameserver fe80::1%eth0\n", ["fe80::1"]),
        ("nameserver fe80::1%2\nnameserver fe80::1%3\n", ["fe80::1"]),
        ("nameserver 10.0.0.1\nnameserver 10.0.0.1\n", ["10.0.0.1"]),
        ("nameserver 2001:db8::1\nnameserver 2001:db8:0:0::1\n", ["2001:db8::1"]),
        ("nameserver 10.0.0.1 # office\nnameserver 10.0.0.2 ; home\n", ["10.0.0.1", "10.0.0.2"]),
        ("# nameserver 10.0.0.1\n; nameserver 10.0.0.2\n#nameserver 10.0.0.3\n", []),
        ("search corp.example\noptions edns0 trust-ad\ndomain nameserver 10.0.0.1\n", []),
        ("nameservers 10.0.0.1\nNAMESERVER 10.0.0.2\nnameserver: 10.0.0.3\n", []),
        ("nameserver\nnameserver \n10.0.0.1\n", []),
        ("nameserver dns.example\nnameserver 10.0.0.256\nnameserver 10.0.0.1#53\nnameserver %eth0\n", []),
        ("nameserver 1\nnameserver 10.0.0\nnameserver 010.0.0.1\nnameserver 10.0.0.0/24\n", []),
        ("nameserver \ufffd\ufffd\nnameserver 10.0.0.1\n", ["10.0.0.1"]),
        ("\0\0nameserver\0 10.0.0.9\nnameserver 10.0.0.1\n", ["10.0.0.1"]),
    ],
)
def test_parse(text: str, expected: list[str]) -> None:
    assert [str(address) for address in parse_nameservers(text)] == expected


@given(st.text())
def test_parse_any_text(text: str) -> None:
    assert isinstance(parse_nameservers(text), list)
    assert parse_nameservers(f"nameserver 10.0.0.1\n{text}")[0] == ip("10.0.0.1")


@given(st.lists(st.ip_addresses(), max_size=20))
def test_parse_keeps_the_order(addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address]) -> None:
    plain = [address for address in addresses if "%" not in str(address)]
    text = "".join(f"nameserver {address}\n" for address in plain)
    assert parse_nameservers(text) == list(dict.fromkeys(plain))


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "resolv.conf"


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    return tmp_path / "upstream.conf"


def auto(conf: Path, upstream: Path, *local: str) -> list[tuple[str, int, bool]]:
    found = auto_resolvers(conf, upstream, {ip(address) for address in local})
    return [(str(resolver.address), resolver.port, resolver.local) for resolver in found]


def test_auto(conf: Path, upstream: Path) -> None:
    conf.write_text("nameserver 10.0.0.53\nnameserver 2001:db8::53\n")
    upstream.write_text("nameserver 10.9.9.9\n")  # nobody asks it
    assert auto(conf, upstream) == [("10.0.0.53", 53, False), ("2001:db8::53", 53, False)]


def test_the_local_flag(conf: Path, upstream: Path) -> None:
    conf.write_text("nameserver 10.0.0.53\nnameserver 10.0.0.54\nnameserver 127.0.0.1\nnameserver ::1\n")
    assert auto(conf, upstream, "10.0.0.54", "192.0.2.1") == [
        ("10.0.0.53", 53, False),
        ("10.0.0.54", 53, True),
        ("127.0.0.1", 53, True),
        ("::1", 53, True),
    ]


@pytest.mark.parametrize("stub", ["127.0.0.53", "127.0.0.54"])
def test_the_stub_of_resolved_adds_what_it_asks(conf: Path, upstream: Path, stub: str) -> None:
    conf.write_text(f"nameserver {stub}\noptions edns0\n")
    upstream.write_text("nameserver 10.0.0.53\nnameserver fe80::1%2\n")
    assert auto(conf, upstream) == [(stub, 53, True), ("10.0.0.53", 53, False), ("fe80::1", 53, False)]
    upstream.unlink()
    assert auto(conf, upstream) == [(stub, 53, True)]


def test_the_stub_and_what_it_asks_are_named_once(conf: Path, upstream: Path) -> None:
    conf.write_text("nameserver 127.0.0.53\nnameserver 10.0.0.53\n")
    upstream.write_text("nameserver 10.0.0.53\nnameserver 127.0.0.53\n")
    assert auto(conf, upstream) == [("127.0.0.53", 53, True), ("10.0.0.53", 53, False)]


def test_no_file_means_this_host(conf: Path, upstream: Path) -> None:
    assert auto(conf, upstream) == [("127.0.0.1", 53, True)]
    conf.write_text("search corp.example\nnameserver garbage\n")
    assert auto(conf, upstream) == [("127.0.0.1", 53, True)]
    conf.unlink()
    conf.mkdir()
    assert auto(conf, upstream) == [("127.0.0.1", 53, True)]


def test_a_file_that_is_not_utf8(conf: Path, upstream: Path) -> None:
    conf.write_bytes(b"# caf\xe9 \xff\xfe\nnameserver 10.0.0.53\n")
    assert auto(conf, upstream) == [("10.0.0.53", 53, False)]


def test_a_huge_file(conf: Path, upstream: Path) -> None:
    with conf.open("w") as file:
        file.write("nameserver 10.0.0.53\n")
        for _ in range(100_000):
            file.write("# a comment that says nothing at all\n")
        file.write("nameserver 10.0.0.54\n")
    assert auto(conf, upstream) == [("10.0.0.53", 53, False)]


def test_an_address_cut_by_the_limit_is_not_another_address(conf: Path, upstream: Path) -> None:
    line = "nameserver 10.0.0.123"
    limit = resolvers._MAX_BYTES
    padding = "#" * (limit - len(line)) + "\n"  # so the limit falls before the last digit
    conf.write_text(f"{padding}{line}\n")
    assert ("10.0.0.12", 53, False) not in auto(conf, upstream)


def test_configured() -> None:
    given = [Resolver(address=ip("10.0.0.53")), Resolver(address=ip("10.0.0.53"), port=5353)]
    given += [Resolver(address=ip("192.0.2.1")), Resolver(address=ip("127.0.0.9")), given[0]]
    assert configured_resolvers(given, {ip("192.0.2.1")}) == [
        TrustedResolver(ip("10.0.0.53"), 53, False),
        TrustedResolver(ip("10.0.0.53"), 5353, False),
        TrustedResolver(ip("192.0.2.1"), 53, True),
        TrustedResolver(ip("127.0.0.9"), 53, True),
    ]
    assert configured_resolvers([], set()) == []


def test_what_a_policy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    remote = TrustedResolver(ip("192.0.2.53"))
    monkeypatch.setattr(resolvers, "host_addresses", set)
    monkeypatch.setattr(resolvers, "auto_resolvers", lambda local: [remote])
    assert resolvers_of(default_policy()) == [remote]
    text = b"version: 1\nregistries: [ghcr]\nresolvers: [10.0.0.53, {address: '::1', port: 5353}]\n"
    assert resolvers_of(parse_policy(text, "policy.yaml")) == [
        TrustedResolver(ip("10.0.0.53")),
        TrustedResolver(ip("::1"), 5353, True),
    ]


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("", []),
        ("nameserver 10.0.0.1\n", []),
        ("search corp.example example\n", ["corp.example", "example"]),
        ("domain corp.example\n", ["corp.example"]),
        ("search one.example\ndomain two.example\n", ["two.example"]),
        ("search one.example\nsearch\n", []),
        ("# search corp.example\n", []),
    ],
)
def test_search_domains(text: str, search: list[str]) -> None:
    assert parse_words(text, "search") == search


def test_options() -> None:
    assert parse_words("options edns0 use-vc\nsearch corp.example\n", "options") == ["edns0", "use-vc"]


def test_auto_has_a_limit(tmp_path: Path) -> None:
    """No file can list more than the kernel's map has room for."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("".join(f"nameserver 10.0.{n // 250}.{n % 250}\n" for n in range(3000)), encoding="utf-8")
    found = auto_resolvers(conf, tmp_path / "none", set())
    assert [str(each.address) for each in found] == [f"10.0.0.{n}" for n in range(64)]

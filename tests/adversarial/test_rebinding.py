"""Allowed names that are led to addresses of this host, of the network behind it, and of its cloud."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial import lies
from tests.adversarial.field import Field, tcp_connect
from tests.adversarial.lookups import ask, assert_shut, dns_line, is_open, name_of, serve
from tests.adversarial.packets import AAAA, A, query
from tests.lab.lab import Lab
from tests.lab.rogue import RogueDns

PRIVATE = "denied-private-address"
HTTPS = 65

core = pytest.mark.core


@pytest.fixture(scope="module")
def policy() -> str:
    return f"""\
version: 1
registries:
  - host: "*.lies.test"
  - host: "*.inner.test"
    private: [10.20.0.0/16, "fd00:1::/64"]
  - host: "*.any.test"
    private: true
refusals:
  responder: off
resolvers: [{Lab.rogue_resolver}]
"""


@pytest.fixture(scope="module", autouse=True)
def rogue(lab: Lab) -> Iterator[RogueDns]:
    with RogueDns(lab.dns.node, Path(lies.__file__)) as result:
        yield result


def lead(field: Field, domain: str, *addresses: str, kind: int | None = None) -> str:
    """Asks for a name of the domain that has these addresses."""
    words = "-".join(f"x{ipaddress.ip_address(address).packed.hex()}" for address in addresses)
    text = f"is-{words}.{domain}"
    ask(field, query(name_of(text), kind or (AAAA if ":" in addresses[0] else A)))
    return text


ADDRESSES = [
    pytest.param("127.0.0.1", "127.0.0.1", id="this host", marks=core),
    pytest.param("127.9.8.7", "127.9.8.7", id="this host by another number"),
    pytest.param("10.1.2.3", "10.1.2.3", id="a private network", marks=core),
    pytest.param("172.31.255.1", "172.31.255.1", id="another one"),
    pytest.param("192.168.1.1", "192.168.1.1", id="a router"),
    pytest.param("169.254.169.254", "169.254.169.254", id="the cloud's metadata", marks=core),
    pytest.param("100.100.100.200", "100.100.100.200", id="Alibaba's metadata"),
    pytest.param("192.0.0.192", "192.0.0.192", id="Oracle's metadata"),
    pytest.param("168.63.129.16", "168.63.129.16", id="Azure's metadata"),
    pytest.param("::1", "::1", id="this host over IPv6"),
    pytest.param("fd00:ec2::254", "fd00:ec2::254", id="Amazon's metadata over IPv6"),
    pytest.param("fec0::1", "fec0::1", id="a site"),
    pytest.param("::ffff:10.0.0.1", "10.0.0.1", id="an IPv4-mapped address"),
    pytest.param("::ffff:127.0.0.9", "127.0.0.9", id="this host as an IPv4-mapped address"),
    pytest.param("64:ff9b::a00:1", "64:ff9b::a00:1", id="by NAT64"),
    pytest.param("64:ff9b::a9fe:a9fe", "64:ff9b::a9fe:a9fe", id="the cloud's metadata by NAT64"),
    pytest.param("2002:a00:1::", "2002:a00:1::", id="by 6to4"),
]


@pytest.mark.parametrize(("address", "told"), ADDRESSES)
def test_private_address(field: Field, address: str, told: str) -> None:
    """Whoever runs an allowed name's DNS leads the client to what only this host or network can reach."""
    serve(field, address)
    start = len(field.daemon.lines())
    text = lead(field, "lies.test", address)
    dns_line(field, start, "dns-private-address", text)
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        tcp_connect(field.inside, address)
    line = field.reason(start, (PRIVATE,), told)
    assert "private" in line["explanation"]
    if ":" not in address:
        with pytest.raises(PermissionError):
            tcp_connect(field.inside, f"::ffff:{address}")
    assert is_open(field.outside, address)
    field.inside.reset()
    field.outside.reset()


def test_any_address(field: Field) -> None:
    """0.0.0.0 is no address of anybody, and connect() takes it for this host."""
    lead(field, "lies.test", "0.0.0.0")
    with pytest.raises(PermissionError):
        tcp_connect(field.inside, "0.0.0.0")
    assert is_open(field.outside, "0.0.0.0")
    field.inside.reset()
    field.outside.reset()


@core
def test_private_beside_a_public_address(field: Field) -> None:
    """The honest address works, and behind it, in the same reply, is the one within."""
    target = field.target()
    lead(field, "lies.test", target.v4, "10.1.2.4")
    tcp_connect(field.inside, target.v4)
    assert_shut(field, "10.1.2.4", PRIVATE)
    field.inside.reset()


@core
def test_address_that_changes(field: Field) -> None:
    """First a public address, and once that is trusted, the same port of a private one."""
    target = field.target()
    text = lead(field, "lies.test", target.v4)
    tcp_connect(field.inside, target.v4)
    lead(field, "lies.test", "10.1.2.5")
    assert_shut(field, "10.1.2.5", PRIVATE)
    assert text.endswith(".lies.test")
    field.inside.reset()


@pytest.mark.parametrize(
    ("address", "opened"),
    [
        pytest.param("10.20.0.7", True, id="within the network"),
        pytest.param("10.20.255.255", True, id="its last address"),
        pytest.param("10.21.0.0", False, id="behind it", marks=core),
        pytest.param("10.19.255.255", False, id="before it"),
        pytest.param("127.0.0.1", False, id="this host"),
        pytest.param("169.254.169.254", False, id="metadata"),
        pytest.param("fd00:1::7", True, id="within the IPv6 network"),
        pytest.param("fd00:1:0:1::7", False, id="behind the IPv6 network"),
        pytest.param("::ffff:10.20.0.8", True, id="within it as an IPv4-mapped address"),
        pytest.param("64:ff9b::a14:7", False, id="within it by NAT64, which is not listed"),
    ],
)
def test_listed_network(field: Field, address: str, opened: bool) -> None:
    """The policy expects some private addresses, and the attacker gives others."""
    serve(field, address)
    lead(field, "inner.test", address)
    assert is_open(field.inside, address) is opened
    assert is_open(field.outside, address)
    field.inside.reset()
    field.outside.reset()


def test_any_private_address(field: Field) -> None:
    """No attack: `private: true` means it."""
    serve(field, "10.44.0.1")
    lead(field, "any.test", "10.44.0.1")
    assert is_open(field.inside, "10.44.0.1")
    field.inside.reset()


@pytest.mark.parametrize("address", ["10.1.2.6", "127.0.0.6", "fd00:ec2::253", "169.254.169.253"])
def test_hint(field: Field, address: str) -> None:
    """An HTTPS record gives addresses as well, which browsers connect to before they ask for any other."""
    serve(field, address)
    target = field.target()
    lead(field, "lies.test", address, target.v4, kind=HTTPS)
    tcp_connect(field.inside, target.v4)
    with pytest.raises(PermissionError):
        tcp_connect(field.inside, address)
    assert is_open(field.outside, address)
    field.inside.reset()
    field.outside.reset()


def test_datagram(field: Field) -> None:
    """The same addresses by UDP, where sendmsg() and the packet itself are looked at."""
    lead(field, "lies.test", "10.1.2.7")
    start = len(field.daemon.lines())
    with pytest.raises(PermissionError):
        field.inside.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("10.1.2.7", 443))
    field.reason(start, (PRIVATE,), "10.1.2.7")
    field.inside.reset()

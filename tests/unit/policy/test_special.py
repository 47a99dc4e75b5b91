"""Which addresses no public registry has, at the edge of every network."""

from __future__ import annotations

import ipaddress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.policy.special import SPECIAL_NETWORKS, is_special

# Before, first, last, after; None where the neighbour is special too, or there is none.
IPV4 = [
    (None, "0.0.0.0", "0.255.255.255", "1.0.0.0"),
    ("9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"),
    ("100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"),
    ("126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"),
    ("168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"),
    ("169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"),
    ("172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"),
    ("191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"),
    ("192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"),
    ("223.255.255.255", "224.0.0.0", "255.255.255.255", None),
]
IPV6 = [
    (None, "::", "::", None),
    (None, "::1", "::1", "::2"),
    (
        "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "fc00::",
        "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "fe00::",
    ),
    ("fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    (None, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
    (None, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", None),
]


def nat64(address: str) -> str:
    return f"64:ff9b::{address}"


def first_of_6to4(address: str) -> str:
    a, b, c, d = map(int, address.split("."))
    return f"2002:{a:02x}{b:02x}:{c:02x}{d:02x}::"


def last_of_6to4(address: str) -> str:
    return first_of_6to4(address)[:-1] + "ffff:ffff:ffff:ffff:ffff"


Edge = tuple[str | None, str, str, str | None]


def _edges() -> list[Edge]:
    edges: list[Edge] = [*IPV4, *IPV6]
    for before, first, last, after in IPV4:
        edges.append((before and nat64(before), nat64(first), nat64(last), after and nat64(after)))
        edges.append(
            (
                before and last_of_6to4(before),
                first_of_6to4(first),
                last_of_6to4(last),
                after and first_of_6to4(after),
            )
        )
    # What lies around a whole prefix is not embedded in it.
    edges.append(
        ("64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", nat64("0.0.0.0"), nat64("0.1.2.3"), "64:ff9b::1:0:0")
    )
    edges.append(("2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2002::", "2002:e000::", "2003::"))
    return edges


EDGES = _edges()


@pytest.mark.parametrize("edge", EDGES, ids=lambda edge: edge[1])
def test_edges(edge: Edge) -> None:
    before, first, last, after = edge
    assert is_special(ipaddress.ip_address(first))
    assert is_special(ipaddress.ip_address(last))
    for outside in (before, after):
        if outside is not None:
            assert not is_special(ipaddress.ip_address(outside))


def test_table_is_exactly_these() -> None:
    named = {(ipaddress.ip_address(first), ipaddress.ip_address(last)) for _, first, last, _ in EDGES[:-2]}
    assert {(network[0], network[-1]) for network in SPECIAL_NETWORKS} == named
    assert len(SPECIAL_NETWORKS) == len(named) == 3 * len(IPV4) + len(IPV6)


def test_none_within_another() -> None:
    for version in (4, 6):
        ranges = sorted((int(n[0]), int(n[-1])) for n in SPECIAL_NETWORKS if n.version == version)
        assert all(one[1] < other[0] for one, other in pairwise(ranges))


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",  # AWS, Azure, Google and others
        "fd00:ec2::254",  # AWS over IPv6
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
    ],
)
def test_special(address: str) -> None:
    assert is_special(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "192.0.2.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101::"]
)
def test_not_special(address: str) -> None:
    assert not is_special(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4), st.integers(0, 2**80 - 1))
def test_embedded_ipv4_counts_as_itself(address: ipaddress.IPv4Address, rest: int) -> None:
    expected = is_special(address)
    for number in (
        0xFFFF << 32 | int(address),
        0x64FF9B << 96 | int(address),
        0x2002 << 112 | int(address) << 80 | rest,
    ):
        assert is_special(ipaddress.IPv6Address(number)) is expected


@given(st.ip_addresses())
def test_same_as_the_table(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert is_special(address) == any((mapped or address) in network for network in SPECIAL_NETWORKS)

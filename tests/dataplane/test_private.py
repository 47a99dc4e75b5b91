"""Private addresses (special.py) that a name is answered with: opened only where the policy expects them."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Iterator

import pytest
from scapy.layers.inet import TCP

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import IPAddress, Reason
from ram_ebpf.dataplane.openings import open_addresses
from ram_ebpf.policy.rules import NameRule
from ram_ebpf.policy.special import SPECIAL_NETWORKS, is_special

from . import messages as m
from .exchanges import DENIED_NAMES, ONE, REGISTRIES, TWO, ask, check, exchange, opened, play, tell
from .messages import address, hint, service
from .support import Bench, ip

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

METADATA, PRIVATE = "169.254.169.254", "10.1.2.3"
IPV4, IPV6 = ipaddress.IPv4Address, ipaddress.IPv6Address


def around(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Iterator[IPAddress]:
    """The first and last address of a network and what is next to them."""
    family = type(network.network_address)
    for last in (network.network_address, network.broadcast_address):
        for step in (-1, 0, 1):
            if 0 <= int(last) + step < 1 << family(0).max_prefixlen:
                yield family(int(last) + step)


def as_answered(addresses: Iterable[IPAddress]) -> set[IPAddress]:
    """An IPv4-mapped address in an AAAA record is the IPv4 one to clients, and in the maps."""
    return {abi.unpack_address(abi.pack_address(item)) for item in addresses}


def answered(bench: Bench, addresses: Iterable[IPAddress], name: str) -> None:
    """Exchanges about a name with all of these addresses, as many to a reply as a test run can take."""
    for qtype, family in ((m.A, IPV4), (m.AAAA, IPV6)):
        chosen = [item for item in addresses if isinstance(item, family)]
        for start in range(0, len(chosen), 100):
            records = [address(str(item)) for item in chosen[start : start + 100]]
            exchange(bench, ask(name, qtype), tell(*records, name=name, qtype=qtype))


def sorted_out(bench: Bench) -> tuple[set[IPAddress], set[IPAddress]]:
    """Addresses that were opened, and those that were not."""
    open_ones = {ipaddress.ip_address(text) for text, _ in bench.learned()}
    return open_ones, {ipaddress.ip_address(text) for text in bench.refused()}


def edges() -> set[IPAddress]:
    found = {item for network in SPECIAL_NETWORKS for item in around(network)}
    for network in SPECIAL_NETWORKS:
        if isinstance(network, ipaddress.IPv4Network):
            # The same spelt as IPv4-mapped and IPv4-compatible addresses; only the first are IPv4.
            found |= {IPV6(0xFFFF << 32 | int(item)) for item in around(network)}
            found |= {IPV6(int(item)) for item in around(network)}
    # Prefixes that lead to IPv4, but with other bits set elsewhere.
    for text in (
        "64:ff9b::1:0a00:1",
        "64:ff9b:1::a00:1",
        "64:ff9c::a00:1",
        "2003:a00:1::",
        "::fffe:10.0.0.1",
    ):
        found.add(IPV6(text))
    return found


def test_edges_of_every_special_network(bench: Bench) -> None:
    addresses = edges()
    answered(bench, addresses, m.NAME)
    wanted = as_answered(addresses)
    assert sorted_out(bench) == (
        {item for item in wanted if not is_special(item)},
        {item for item in wanted if is_special(item)},
    )
    assert len(wanted) > 200


@pytest.mark.heavy
def test_random_addresses(bench: Bench) -> None:
    """Half of them begin like a special network."""
    pick = random.Random(8)  # the same addresses each time
    addresses: list[IPAddress] = []
    for _ in range(1500):
        network = pick.choice(SPECIAL_NETWORKS)
        family = type(network.network_address)
        width = network.max_prefixlen
        addresses.append(family(pick.getrandbits(width)))
        near = int(network.network_address) | pick.getrandbits(width - network.prefixlen or 1)
        addresses.append(family(near ^ pick.choice((0, 1 << pick.randrange(width)))))
    answered(bench, addresses, m.NAME)
    wanted = as_answered(addresses)
    assert sorted_out(bench) == (
        {item for item in wanted if not is_special(item)},
        {item for item in wanted if is_special(item)},
    )


REFUSED = [
    pytest.param(address(PRIVATE), m.A, PRIVATE, id="an A record"),
    pytest.param(address("fd00:1::1"), m.AAAA, "fd00:1::1", id="an AAAA record"),
    pytest.param(
        m.record(m.AAAA, ipaddress.ip_address("::ffff:10.1.2.3").packed),
        m.AAAA,
        PRIVATE,
        id="an AAAA record of an IPv4-mapped address",
    ),
    pytest.param(service(hint(METADATA)), m.HTTPS, METADATA, id="an ipv4hint"),
    pytest.param(service(hint("::1")), m.HTTPS, "::1", id="an ipv6hint"),
]


@pytest.mark.parametrize(("answer", "qtype", "text"), REFUSED)
def test_private_address_is_not_opened(bench: Bench, answer: bytes, qtype: int, text: str) -> None:
    play(bench, ask(qtype=qtype), tell(answer, qtype=qtype, counted=Reason.DNS_PRIVATE_ADDRESS))
    assert bench.learned() == {}
    assert bench.refused() == {text}
    assert not bench.egress(ip(text) / TCP(dport=443, flags="S"))
    assert bench.counted() == {Reason.DENIED_PRIVATE_ADDRESS: 1}
    # On another port the address is still known to be an allowed name's.
    assert not bench.egress(ip(text) / TCP(dport=80, flags="S"))
    assert not bench.egress(ip(text) / TCP(dport=53, flags="S"))
    assert bench.counted() == {Reason.DENIED_PORT: 1, Reason.DENIED_RESOLVER: 1}


def test_public_address_beside_a_private_one_is_opened(bench: Bench) -> None:
    check(bench, (ask(), tell(address(PRIVATE), address(ONE), address(METADATA))), opened({ONE: 300}))
    assert bench.refused() == {PRIVATE, METADATA}


EXPECTED = [
    pytest.param("private.test", [PRIVATE, METADATA, "127.0.0.1", "192.168.7.7"], [], id="any"),
    pytest.param("private.test", ["fd00:2::1", "fe80::1", "::1", "64:ff9b::a00:1"], [], id="any of IPv6"),
    pytest.param(
        "ranges.test",
        ["10.20.0.0", "10.20.255.255", "192.168.7.7", ONE],
        ["10.19.255.255", "10.21.0.0", "192.168.7.6", "192.168.7.8", METADATA, "127.0.0.1"],
        id="a list",
    ),
    pytest.param(
        "ranges.test",
        ["fd00:1::", "fd00:1::ffff:ffff:ffff:ffff", "2001:db8::1", "64:ff9b::a1e:0", "64:ff9b::a1e:ffff"],
        ["fd00:0:ffff:ffff::1", "fd00:1:0:1::", "64:ff9b::a1d:ffff", "64:ff9b::a1f:0", "64:ff9b::a14:1"],
        id="a list of IPv6",
    ),
    pytest.param("six.test", ["fd00:2::1", "fe80::1", "::1", "64:ff9b::a00:1"], [], id="all of IPv6"),
    pytest.param(
        "six.test", [ONE], [PRIVATE, METADATA, "127.0.0.1", "0.0.0.0"], id="all of IPv6, which IPv4 is not"
    ),
]


@pytest.mark.parametrize(("name", "fine", "refused"), EXPECTED)
def test_policy_expects(bench: Bench, name: str, fine: list[str], refused: list[str]) -> None:
    """In the replies that the kernel reads, and in the lookups of user space, alike."""
    addresses = [ipaddress.ip_address(text) for text in (*fine, *refused)]
    wanted = {ipaddress.ip_address(text) for text in fine}, {ipaddress.ip_address(text) for text in refused}
    answered(bench, addresses, name)
    assert sorted_out(bench) == wanted
    rule = bench.plane.tables.rule(bench.rule_of(name))
    assert isinstance(rule, NameRule)
    open_addresses(
        bench.map("seeded"),
        [(item, 300) for item in addresses],
        rule,
        bench.plane.tables,
        bench.settings,
    )
    seeded = bench.openings("seeded").items()
    assert {ipaddress.ip_address(text) for (text, _), opening in seeded if not opening.flags} == wanted[0]
    assert {ipaddress.ip_address(text) for (text, _), opening in seeded if opening.flags} == wanted[1]


def test_ipv6_range_around_ipv4_does_not_reach_it_in_aaaa_records(bench: Bench) -> None:
    """::/0 as an IPv6 range covers ::ffff:0:0/96, where IPv4 addresses are kept."""
    record = m.record(m.AAAA, ipaddress.ip_address("::ffff:10.1.2.3").packed)
    play(
        bench,
        ask("six.test", m.AAAA),
        tell(record, name="six.test", qtype=m.AAAA, counted=Reason.DNS_PRIVATE_ADDRESS),
    )
    assert bench.refused() == {PRIVATE}
    rule = bench.plane.tables.rule(bench.rule_of("six.test"))
    assert isinstance(rule, NameRule)
    answers = [(ipaddress.ip_address("::ffff:10.1.2.3"), 300)]
    open_addresses(bench.map("seeded"), answers, rule, bench.plane.tables, bench.settings)
    assert [opening.flags for opening in bench.openings("seeded").values()] == [abi.OpeningFlag.PRIVATE]


def test_what_one_rule_expects_another_does_not_close(bench: Bench) -> None:
    """Both names have the same ports, and so one opening."""
    check(
        bench,
        (
            ask("private.test"),
            tell(address(PRIVATE), name="private.test"),
            ask(),
            tell(address(PRIVATE, ttl=900), counted=Reason.DNS_PRIVATE_ADDRESS),
        ),
        opened({PRIVATE: 300}, "private.test"),
    )
    assert bench.refused() == set()


def test_what_one_rule_refused_another_opens(bench: Bench) -> None:
    check(
        bench,
        (
            ask(),
            tell(address(PRIVATE, ttl=900), counted=Reason.DNS_PRIVATE_ADDRESS),
            ask("private.test"),
            tell(address(PRIVATE), name="private.test"),
        ),
        opened({PRIVATE: 300}, "private.test"),
    )
    assert bench.refused() == set()


def test_ports_of_another_name_do_not_open_it(bench: Bench) -> None:
    exchange(bench, ask("private.test"), tell(address(PRIVATE), name="private.test"))
    exchange(bench, ask("ports.test"), tell(address(PRIVATE), address(TWO), name="ports.test"))
    bench.counted()
    assert bench.egress(ip(PRIVATE) / TCP(dport=443, flags="S"))
    assert not bench.egress(ip(PRIVATE) / TCP(dport=5000, flags="S"))
    assert bench.egress(ip(TWO) / TCP(dport=5000, flags="S"))
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 2, Reason.DENIED_PRIVATE_ADDRESS: 1}

"""Which packets may leave, and the reason that is counted for each; in enforce and in audit mode."""

from __future__ import annotations

import contextlib
import ipaddress
import random
from collections.abc import Iterator
from typing import Any

import pytest
from scapy.layers.inet import ICMP, TCP, UDP, IPOption_LSRR, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.settings import Settings

from .support import CLIENT, RESOLVER, RESOLVER6, Bench, frame, ip

# The last ones share ports, so that a rule decides by its list.
REGISTRIES = """
  - host: registry.test
    ports: [443, 5000]
  - host: a.test
  - host: b.test
    ports: [443, 8443]
  - host: c.test
    ports: [8443]
  - host: dns.test
    ports: [53, 443, 853]
  - address: 10.9.0.0/24
    ports: [5000, 5001]
  - address: 10.8.0.8
  - address: 2001:db8:9::/48
    ports: [5000]
  - address: "::/0"
    ports: [10001]
  - address: "::/64"
    ports: [10002]
  - address: "::/96"
    ports: [10003]
  - address: 0.0.0.0/0
    ports: [10004]
  - address: 198.51.100.200
    ports: [53, 853]
"""

LEARNED, LEARNED6 = "192.0.2.1", "2001:db8:1::1"
EXPIRED, EXPIRED6, IN_GRACE = "192.0.2.2", "2001:db8:1::2", "192.0.2.3"
SEEDED, SEEDED_IN_GRACE, SEEDED_AND_LEARNED = "192.0.2.4", "192.0.2.5", "192.0.2.6"
LEARNED_LONG_AGO_IN_RANGE = "10.9.0.9"
PRIVATE, PRIVATE6, PRIVATE_IN_RANGE = "10.1.2.3", "fd00:1::1", "10.9.0.10"
DNS_HOST, DNS_RANGE = "192.0.2.53", "198.51.100.200"
DOH, DOH6 = "198.51.100.153", "2001:db8:f::153"
UNKNOWN, UNKNOWN6 = "198.51.100.1", "2001:db8:f::1"
GRACE = 5  # seconds, few, since a guest may have been up for only a little longer

# https://www.iana.org/assignments/protocol-numbers
IGMP, TCP_NUMBER, GRE, ESP, AH, NO_NEXT_HEADER, DESTINATION_OPTIONS, SCTP = 2, 6, 47, 50, 51, 59, 60, 132


def syn(destination: str, port: int = 443, **fields: Any) -> Packet:
    """The packet that opens a connection."""
    return ip(destination, **fields) / TCP(sport=40000, dport=port, flags="S")


def udp(destination: str, port: int = 443) -> Packet:
    return ip(destination) / UDP(sport=40000, dport=port) / Raw(b"QUIC")


def under(destination: str, *headers: Packet, transport: Packet | None = None) -> Packet:
    """A SYN to port 443, or another packet, behind IPv6 extension headers."""
    packet = ip(destination)
    for header in headers:
        packet /= header
    return packet / (transport or TCP(sport=40000, dport=443, flags="S"))


def cut(packet: Packet, octets: int) -> bytes:
    """A frame without its last octets."""
    return frame(packet)[:-octets]


def versioned(packet: Packet, first: int) -> bytes:
    """A frame whose IP header begins with another octet: version, and length of the header."""
    data = bytearray(frame(packet))
    data[14] = first
    return bytes(data)


def described(*rows: tuple[str, Packet | bytes, Reason]) -> Iterator[Any]:
    for text, packet, reason in rows:
        yield pytest.param(packet, reason, id=text)


def hop_by_hop(octets: int = 4) -> Packet:
    return IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(octets))])


def destination_options(octets: int = 12) -> Packet:
    return IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(octets))])


ALLOWED = described(
    ("a SYN to a learned endpoint", syn(LEARNED), Reason.ALLOWED_LEARNED),
    ("a SYN to another port of the rule", syn(LEARNED, 5000), Reason.ALLOWED_LEARNED),
    ("a SYN to a learned IPv6 endpoint", syn(LEARNED6), Reason.ALLOWED_LEARNED),
    ("a SYN to a learned endpoint as an IPv4-mapped one", syn(f"::ffff:{LEARNED}"), Reason.ALLOWED_LEARNED),
    ("a UDP datagram to a learned endpoint", udp(LEARNED), Reason.DENIED_NOT_NAMED),
    ("a UDP datagram to a learned IPv6 endpoint", udp(LEARNED6), Reason.DENIED_NOT_NAMED),
    ("data to a learned endpoint", ip(LEARNED) / TCP(dport=443, flags="PA"), Reason.ALLOWED_LEARNED),
    ("an answer that expired within the grace", syn(IN_GRACE), Reason.ALLOWED_GRACE),
    ("an address that user space resolved", syn(SEEDED), Reason.ALLOWED_LEARNED),
    ("an address that user space resolved, in its grace", syn(SEEDED_IN_GRACE), Reason.ALLOWED_GRACE),
    ("an address that expired in one map only", syn(SEEDED_AND_LEARNED), Reason.ALLOWED_LEARNED),
    ("the first address of a range", syn("10.9.0.0", 5000), Reason.ALLOWED_ADDRESS),
    ("the last address of a range", syn("10.9.0.255", 5001), Reason.ALLOWED_ADDRESS),
    ("a UDP datagram into a range", udp("10.9.0.7", 5000), Reason.ALLOWED_ADDRESS),
    ("a single address", syn("10.8.0.8"), Reason.ALLOWED_ADDRESS),
    ("an IPv6 range", syn("2001:db8:9:ffff::1", 5000), Reason.ALLOWED_ADDRESS),
    ("an address of a range as an IPv4-mapped one", syn("::ffff:10.9.0.7", 5000), Reason.ALLOWED_ADDRESS),
    (
        "an address of a range whose answer has expired",
        syn(LEARNED_LONG_AGO_IN_RANGE, 5000),
        Reason.ALLOWED_ADDRESS,
    ),
    (
        "a private address of a range, whatever a name says",
        syn(PRIVATE_IN_RANGE, 5000),
        Reason.ALLOWED_ADDRESS,
    ),
    ("DNS to a host that the policy allows it to", udp(DNS_HOST, 53), Reason.ALLOWED_LEARNED),
    ("DNS over TLS to a host that the policy allows it to", syn(DNS_HOST, 853), Reason.ALLOWED_LEARNED),
    ("DNS to an address that the policy allows it to", udp(DNS_RANGE, 53), Reason.ALLOWED_ADDRESS),
    ("DNS over TLS to an address that the policy allows it to", syn(DNS_RANGE, 853), Reason.ALLOWED_ADDRESS),
    ("a resolver over TCP", ip(RESOLVER) / TCP(dport=53, flags="A"), Reason.ALLOWED_RESOLVER),
    ("a resolver over TCP and IPv6", ip(RESOLVER6) / TCP(dport=53, flags="A"), Reason.ALLOWED_RESOLVER),
    ("ICMP", ip(UNKNOWN) / ICMP(), Reason.ALLOWED_PROTOCOL),
    ("ICMPv6", ip(UNKNOWN6) / ICMPv6EchoRequest(), Reason.ALLOWED_PROTOCOL),
    (
        "ICMPv6 behind hop-by-hop options, as multicast listeners send it",
        under("ff02::16", hop_by_hop(), transport=ICMPv6EchoRequest()),
        Reason.ALLOWED_PROTOCOL,
    ),
    (
        "IGMP with the router alert option",
        ip("224.0.0.22", proto=IGMP, options=[IPOption_Router_Alert()]) / Raw(bytes(8)),
        Reason.ALLOWED_PROTOCOL,
    ),
    ("the first fragment of an IPv4 packet", syn(LEARNED, flags="MF"), Reason.ALLOWED_LEARNED),
    ("IPv6 hop-by-hop options", under(LEARNED6, hop_by_hop()), Reason.ALLOWED_LEARNED),
    (
        "IPv6 hop-by-hop and destination options",
        under(LEARNED6, hop_by_hop(), destination_options()),
        Reason.ALLOWED_LEARNED,
    ),
    (
        "the first fragment of an IPv6 packet",
        under(LEARNED6, IPv6ExtHdrFragment(offset=0, m=1)),
        Reason.ALLOWED_LEARNED,
    ),
    (
        "IPv6 options of the greatest length",
        ip(LEARNED6, nh=DESTINATION_OPTIONS)
        / Raw(bytes((TCP_NUMBER, 255)) + bytes(2046))
        / TCP(dport=443, flags="S"),
        Reason.ALLOWED_LEARNED,
    ),
    (
        "seven IPv6 extension headers",
        under(LEARNED6, *(destination_options() for _ in range(7))),
        Reason.ALLOWED_LEARNED,
    ),
    (
        # RFC 4302 2.2: its length is in units of 4 octets, less 2; other headers count 8 octets, less 1.
        "an IPv6 authentication header",
        ip(LEARNED6, nh=AH) / Raw(bytes((TCP_NUMBER, 4)) + bytes(22)) / TCP(dport=443, flags="S"),
        Reason.ALLOWED_LEARNED,
    ),
)

DENIED = described(
    ("a SYN to an unknown address", syn(UNKNOWN), Reason.DENIED_UNKNOWN_ADDRESS),
    ("a SYN to an unknown IPv6 address", syn(UNKNOWN6), Reason.DENIED_UNKNOWN_ADDRESS),
    ("a UDP datagram to an unknown address", udp(UNKNOWN), Reason.DENIED_UNKNOWN_ADDRESS),
    ("data to an unknown address", ip(UNKNOWN) / TCP(dport=443, flags="PA"), Reason.DENIED_UNKNOWN_ADDRESS),
    ("an ACK to an unknown address", ip(UNKNOWN) / TCP(dport=443, flags="A"), Reason.DENIED_UNKNOWN_ADDRESS),
    ("a FIN to an unknown address", ip(UNKNOWN) / TCP(dport=443, flags="FA"), Reason.DENIED_UNKNOWN_ADDRESS),
    ("a SYN+ACK to nobody", ip(UNKNOWN) / TCP(dport=443, flags="SA"), Reason.DENIED_UNKNOWN_ADDRESS),
    ("a TCP packet without flags", ip(UNKNOWN) / TCP(dport=443, flags=0), Reason.DENIED_UNKNOWN_ADDRESS),
    ("a TCP packet with all flags", ip(UNKNOWN) / TCP(dport=443, flags=0xFF), Reason.DENIED_UNKNOWN_ADDRESS),
    (
        "an IPv4-compatible address is not IPv4",  # RFC 4291 2.5.5.1
        syn(f"::{LEARNED}"),
        Reason.DENIED_UNKNOWN_ADDRESS,
    ),
    ("another port of a learned address", syn(LEARNED, 80), Reason.DENIED_PORT),
    ("another port of a learned address, UDP", udp(LEARNED, 80), Reason.DENIED_PORT),
    ("another port of a learned IPv6 address", syn(LEARNED6, 80), Reason.DENIED_PORT),
    ("another port of an address that user space resolved", syn(SEEDED, 80), Reason.DENIED_PORT),
    ("port 0 of a learned address", syn(LEARNED, 0), Reason.DENIED_PORT),
    ("port 0 of a learned address, UDP", udp(LEARNED, 0), Reason.DENIED_PORT),
    ("port 0 of an address in its grace", udp(IN_GRACE, 0), Reason.DENIED_PORT),
    ("another port of an address whose answer expired", syn(EXPIRED, 80), Reason.DENIED_PORT),
    ("a private address", syn(PRIVATE), Reason.DENIED_PRIVATE_ADDRESS),
    ("a private address, UDP", udp(PRIVATE), Reason.DENIED_PRIVATE_ADDRESS),
    ("a private IPv6 address", syn(PRIVATE6), Reason.DENIED_PRIVATE_ADDRESS),
    ("another port of a private address", syn(PRIVATE, 80), Reason.DENIED_PORT),
    ("a port of a range that a private address is in", syn(PRIVATE_IN_RANGE), Reason.DENIED_PRIVATE_ADDRESS),
    ("an answer that expired", syn(EXPIRED), Reason.DENIED_EXPIRED),
    ("an IPv6 answer that expired", syn(EXPIRED6), Reason.DENIED_EXPIRED),
    ("another port of a range", syn("10.9.0.7", 443), Reason.DENIED_UNKNOWN_ADDRESS),
    ("the address before a range", syn("10.8.255.255", 5000), Reason.DENIED_UNKNOWN_ADDRESS),
    ("the address behind a range", syn("10.9.1.0", 5000), Reason.DENIED_UNKNOWN_ADDRESS),
    ("another port of an IPv6 range", syn("2001:db8:9::1", 443), Reason.DENIED_UNKNOWN_ADDRESS),
    ("the address behind an IPv6 range", syn("2001:db8:a::", 5000), Reason.DENIED_UNKNOWN_ADDRESS),
    ("DNS to another server", udp(UNKNOWN, 53), Reason.DENIED_RESOLVER),
    ("DNS over TCP to another server", syn(UNKNOWN, 53), Reason.DENIED_RESOLVER),
    ("DNS over IPv6 to another server", udp(UNKNOWN6, 53), Reason.DENIED_RESOLVER),
    ("DNS to a registry", udp(LEARNED, 53), Reason.DENIED_RESOLVER),
    ("DNS to a registry whose answer expired", udp(EXPIRED, 53), Reason.DENIED_RESOLVER),
    ("DNS to a known encrypted resolver", udp(DOH, 53), Reason.DENIED_RESOLVER),
    ("multicast DNS", udp("224.0.0.251", 5353), Reason.DENIED_UNKNOWN_ADDRESS),
    ("DNS over TLS to another server", syn(UNKNOWN, 853), Reason.DENIED_DNS_OVER_TLS),
    ("DNS over TLS and IPv6 to another server", syn(UNKNOWN6, 853), Reason.DENIED_DNS_OVER_TLS),
    ("DNS over TLS to a trusted resolver", syn(RESOLVER, 853), Reason.DENIED_DNS_OVER_TLS),
    ("DNS over TLS to a registry", syn(LEARNED, 853), Reason.DENIED_DNS_OVER_TLS),
    ("data of DNS over TLS", ip(UNKNOWN) / TCP(dport=853, flags="PA"), Reason.DENIED_DNS_OVER_TLS),
    ("DNS over QUIC to another server", udp(UNKNOWN, 853), Reason.DENIED_DNS_OVER_QUIC),
    ("DNS over QUIC and IPv6 to another server", udp(UNKNOWN6, 853), Reason.DENIED_DNS_OVER_QUIC),
    ("DNS over QUIC to a trusted resolver", udp(RESOLVER, 853), Reason.DENIED_DNS_OVER_QUIC),
    ("DNS over HTTPS to a known resolver", syn(DOH), Reason.DENIED_DNS_OVER_HTTPS),
    ("DNS over HTTPS and IPv6 to a known resolver", syn(DOH6), Reason.DENIED_DNS_OVER_HTTPS),
    ("DNS over HTTP/3 to a known resolver", udp(DOH), Reason.DENIED_DNS_OVER_HTTPS),
    ("DNS over TLS to a known resolver", syn(DOH, 853), Reason.DENIED_DNS_OVER_TLS),
    ("another port of a known resolver", syn(DOH, 8443), Reason.DENIED_UNKNOWN_ADDRESS),
    ("another port of a trusted resolver", syn(RESOLVER, 443), Reason.DENIED_UNKNOWN_ADDRESS),
    ("SCTP", ip(LEARNED, proto=SCTP) / Raw(bytes(32)), Reason.DENIED_PROTOCOL),
    ("GRE", ip(LEARNED, proto=GRE) / Raw(bytes(32)), Reason.DENIED_PROTOCOL),
    ("an IPv4 packet in an IPv4 packet", ip(LEARNED) / syn(LEARNED), Reason.DENIED_PROTOCOL),
    ("an IPv6 packet in an IPv4 packet", ip(LEARNED) / syn(LEARNED6), Reason.DENIED_PROTOCOL),
    ("SCTP over IPv6", ip(LEARNED6, nh=SCTP) / Raw(bytes(32)), Reason.DENIED_PROTOCOL),
    ("ESP over IPv6", ip(LEARNED6, nh=ESP) / Raw(bytes(32)), Reason.DENIED_PROTOCOL),
    ("an IPv6 packet without content", ip(LEARNED6, nh=NO_NEXT_HEADER), Reason.DENIED_PROTOCOL),
    (
        "GRE behind IPv6 options",
        under(LEARNED6, hop_by_hop(), transport=IPv6ExtHdrDestOpt(nh=GRE) / Raw(bytes(8))),
        Reason.DENIED_PROTOCOL,
    ),
    ("a later fragment of an IPv4 packet", syn(LEARNED, frag=1), Reason.DENIED_FRAGMENT),
    (
        "a fragment from the second half of the greatest packet",
        syn(LEARNED, frag=0x1000),
        Reason.DENIED_FRAGMENT,
    ),
    ("the last possible IPv4 fragment", syn(LEARNED, frag=0x1FFF), Reason.DENIED_FRAGMENT),
    ("a later fragment of an ICMP packet", ip(LEARNED, frag=1) / ICMP(), Reason.DENIED_FRAGMENT),
    (
        "a later fragment of an IPv6 packet",
        under(LEARNED6, IPv6ExtHdrFragment(offset=1)),
        Reason.DENIED_FRAGMENT,
    ),
    (
        "a loose source route",
        syn(LEARNED, options=[IPOption_LSRR(routers=[UNKNOWN])]),
        Reason.DENIED_SOURCE_ROUTE,
    ),
    ("any IPv4 option on TCP", syn(LEARNED, options=[IPOption_NOP()]), Reason.DENIED_SOURCE_ROUTE),
    (
        "any IPv4 option on UDP",
        ip(LEARNED, options=[IPOption_NOP()]) / UDP(dport=443),
        Reason.DENIED_SOURCE_ROUTE,
    ),
    ("an IPv6 routing header", under(LEARNED6, IPv6ExtHdrRouting()), Reason.DENIED_SOURCE_ROUTE),
    (
        "an IPv6 routing header behind options",
        under(LEARNED6, hop_by_hop(), destination_options(), IPv6ExtHdrRouting(addresses=[UNKNOWN6])),
        Reason.DENIED_SOURCE_ROUTE,
    ),
    ("half a TCP header", cut(syn(LEARNED), 10), Reason.DENIED_MALFORMED),
    ("a TCP header that lacks one octet", cut(syn(LEARNED), 1), Reason.DENIED_MALFORMED),
    ("a UDP header that lacks one octet", cut(ip(LEARNED) / UDP(dport=443), 1), Reason.DENIED_MALFORMED),
    ("no TCP header at all", cut(syn(LEARNED), 20), Reason.DENIED_MALFORMED),
    ("half a TCP header over IPv6", cut(syn(LEARNED6), 10), Reason.DENIED_MALFORMED),
    (
        "an IPv6 extension header cut off",
        cut(under(LEARNED6, hop_by_hop(), transport=Raw(bytes(1))), 2),
        Reason.DENIED_MALFORMED,
    ),
    (
        "an IPv6 extension header that reaches behind the packet",
        under(LEARNED6, IPv6ExtHdrDestOpt(len=255, options=[PadN(optdata=bytes(4))])),
        Reason.DENIED_MALFORMED,
    ),
    (
        "eight IPv6 extension headers",
        under(LEARNED6, *(destination_options() for _ in range(8))),
        Reason.DENIED_MALFORMED,
    ),
    ("an IPv4 header shorter than can be", versioned(syn(LEARNED), 0x44), Reason.DENIED_MALFORMED),
    ("another version in an IPv4 packet", versioned(syn(LEARNED), 0x65), Reason.DENIED_MALFORMED),
)


@pytest.fixture
def openings(bench: Bench) -> Iterator[Bench]:
    """The addresses above, as the traffic and the lookups of the past would have opened them."""
    ports = (443, 5000)
    for address in (LEARNED, LEARNED6, SEEDED_AND_LEARNED):
        bench.open("learned", address, ports, 300)
    for address in (EXPIRED, EXPIRED6, LEARNED_LONG_AGO_IN_RANGE):
        bench.open("learned", address, ports, -GRACE - 1)
    bench.open("learned", IN_GRACE, ports, -1)
    bench.open("seeded", SEEDED, ports, 300)
    bench.open("seeded", SEEDED_IN_GRACE, ports, -1)
    bench.open("seeded", SEEDED_AND_LEARNED, ports, -GRACE - 1)
    bench.open("learned", DNS_HOST, (53, 443, 853), 300)
    for address in (PRIVATE, PRIVATE6):
        bench.open("learned", address, ports, 300, flags=abi.OpeningFlag.PRIVATE)
    bench.open("learned", PRIVATE_IN_RANGE, ports, 300, flags=abi.OpeningFlag.PRIVATE)
    bench.plane.know_encrypted_resolvers(map(ipaddress.ip_address, (DOH, DOH6)))
    with bench.configured(Settings(grace=GRACE)):
        yield bench


@pytest.mark.parametrize(("packet", "reason"), [*ALLOWED, *DENIED])
def test_packet(openings: Bench, packet: Packet | bytes, reason: Reason) -> None:
    data = packet if isinstance(packet, bytes) else frame(packet)
    assert openings.egress(data) is reason.name.startswith("ALLOWED_")
    assert openings.counted() == {reason: 1}
    openings.forget_connections()
    # Audit differs in the verdict alone.
    with openings.configured(Settings(mode=abi.Mode.AUDIT, grace=GRACE)):
        assert openings.egress(data)
    assert openings.counted() == {reason: 1}


@pytest.mark.parametrize(
    ("client", "remote"),
    [pytest.param(CLIENT, UNKNOWN, id="IPv4"), pytest.param("2001:db8::2", UNKNOWN6, id="IPv6")],
)
def test_connection_from_outside(bench: Bench, client: str, remote: str) -> None:
    def answer(flags: str, local_port: int = 8080, remote_port: int = 40000) -> bool:
        return bench.egress(ip(remote, client) / TCP(sport=local_port, dport=remote_port, flags=flags))

    assert not answer("SA")
    assert bench.ingress(ip(client, remote) / TCP(sport=40000, dport=8080, flags="S"))
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 1}
    assert all(answer(flags) for flags in ("SA", "A", "PA", "FA", "R"))
    assert bench.counted() == {Reason.ALLOWED_INBOUND: 5}
    # Not the other way round, and no other connection.
    assert not answer("S")
    assert not answer("A", local_port=8081)
    assert not answer("A", remote_port=40001)
    assert not bench.egress(ip(remote, client) / UDP(sport=8080, dport=40000))
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 4}


@pytest.mark.parametrize("flags", ["SA", "A", "PA", "FA", "R"])
def test_only_a_syn_from_outside_begins_a_connection(bench: Bench, flags: str) -> None:
    assert bench.ingress(ip(CLIENT, UNKNOWN) / TCP(sport=40000, dport=8080, flags=flags))
    assert not bench.egress(ip(UNKNOWN) / TCP(sport=8080, dport=40000, flags="A"))
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 1}


def test_socket_remembers_whom_it_may_reach(bench: Bench) -> None:
    """One test run has one socket, so what follows its first packet is the same connection."""
    bench.open("learned", LEARNED, (443,), 300)
    assert bench.egress(ip(LEARNED) / TCP(dport=443, flags="PA"), repeat=3)
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 1, Reason.ALLOWED_ESTABLISHED: 2}
    # What opens a connection is decided afresh, and so is each packet to a resolver.
    assert bench.egress(syn(LEARNED), repeat=3)
    assert bench.egress(ip(RESOLVER) / TCP(dport=53, flags="PA"), repeat=3)
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 3, Reason.ALLOWED_RESOLVER: 3}
    # What was denied once is not remembered as allowed.
    assert not bench.egress(ip(UNKNOWN) / TCP(dport=443, flags="PA"), repeat=3)
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 3}


def test_audit_reports_a_connection_once(bench: Bench) -> None:
    """Or each of its packets would be reported; the next connection is decided, and reported, afresh."""
    with bench.configured(Settings(mode=abi.Mode.AUDIT)):
        assert bench.egress(udp(UNKNOWN), repeat=3)
        assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 1, Reason.ALLOWED_ESTABLISHED: 2}
        assert bench.egress(syn(UNKNOWN), repeat=3)
        assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 3}


def test_grace_can_be_none(bench: Bench) -> None:
    bench.open("learned", LEARNED, (443,), -1)
    with bench.configured(Settings(grace=0)):
        assert not bench.egress(syn(LEARNED))
    assert bench.counted() == {Reason.DENIED_EXPIRED: 1}


def test_many_ports(bench: Bench) -> None:
    bench.open("learned", LEARNED, (443, 5000), 300)
    ports = sorted({*range(0, 65536, 997), 442, 443, 444, 4999, 5000, 5001, 65535} - {53, 853})
    assert [port for port in ports if bench.egress(syn(LEARNED, port))] == [443, 5000]
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 2, Reason.DENIED_PORT: len(ports) - 2}


def test_noise_gets_one_reason_each_and_opens_nothing(bench: Bench) -> None:
    noise = random.Random(2)  # the same noise each time
    ethernet = bytes(12)
    count = 0
    for length in range(1, 129):
        for ethertype, first in (
            (b"\x08\x00", b""),
            (b"\x08\x00", b"\x45"),
            (b"\x86\xdd", b"\x60"),
            (b"\x08\x06", b""),
        ):
            packet = ethernet + ethertype + (first + noise.randbytes(length))[:length]
            try:
                bench.egress(packet)
            except OSError:  # newer kernels refuse test runs without a whole IP header
                assert length < 40
                continue
            count += 1
            bench.ingress(packet)
    assert sum(bench.counted().values()) == count
    assert bench.learned() == {}


@pytest.mark.parametrize("port", [10001, 10002, 10003], ids=["::/0", "::/64", "::/96"])
def test_ipv6_range_does_not_reach_ipv4(bench: Bench, port: int) -> None:
    """IPv4 addresses are kept in their IPv4-mapped form; the administrator who writes ::/0 means IPv6."""
    assert bench.egress(syn("::2", port))
    assert not bench.egress(syn(UNKNOWN, port))
    assert not bench.egress(syn(f"::ffff:{UNKNOWN}", port))


def test_ipv4_range_does_not_reach_ipv6(bench: Bench) -> None:
    assert bench.egress(syn(UNKNOWN, 10004))
    assert bench.egress(syn(f"::ffff:{UNKNOWN}", 10004))
    assert not bench.egress(syn(UNKNOWN6, 10004))
    assert not bench.egress(syn("::2", 10004))


# What is kept of one address: table, ports, seconds left, and flags. It is then asked for on port 443.
LONG_AGO = -GRACE - 1
A, B, C, REGISTRY = (443,), (443, 8443), (8443,), (443, 5000)
PRIVATE_FLAG = int(abi.OpeningFlag.PRIVATE)
Kept = tuple[str, tuple[int, ...], int, int]

LISTS = [
    pytest.param([], Reason.DENIED_UNKNOWN_ADDRESS, "", id="nothing"),
    pytest.param([("learned", A, 300, 0)], Reason.ALLOWED_LEARNED, "a.test", id="one list"),
    pytest.param(
        [("learned", A, LONG_AGO, 0), ("learned", B, 300, 0)],
        Reason.ALLOWED_LEARNED,
        "b.test",
        id="expired in one list and not in another",
    ),
    pytest.param(
        [("learned", A, 300, 0), ("learned", B, LONG_AGO, 0)],
        Reason.ALLOWED_LEARNED,
        "a.test",
        id="not in one list, expired in another",
    ),
    pytest.param(
        [("learned", A, -1, 0), ("learned", B, 300, 0)],
        Reason.ALLOWED_LEARNED,
        "b.test",
        id="in its grace in one list, valid in another",
    ),
    pytest.param(
        [("learned", A, LONG_AGO, 0), ("learned", B, -1, 0)],
        Reason.ALLOWED_GRACE,
        "b.test",
        id="expired in one list, in its grace in another",
    ),
    pytest.param(
        [("learned", A, -1, 0), ("learned", B, LONG_AGO, 0)],
        Reason.ALLOWED_GRACE,
        "a.test",
        id="in its grace in one list, expired in another",
    ),
    pytest.param(
        [("learned", A, LONG_AGO, 0), ("learned", C, 300, 0)],
        Reason.DENIED_EXPIRED,
        "a.test",
        id="expired, and valid on another port",
    ),
    pytest.param([("learned", C, LONG_AGO, 0)], Reason.DENIED_PORT, "c.test", id="expired on another port"),
    pytest.param([("seeded", C, 300, 0)], Reason.DENIED_PORT, "c.test", id="resolved for another port"),
    pytest.param(
        [("seeded", C, 300, 0), ("learned", A, LONG_AGO, 0)],
        Reason.DENIED_EXPIRED,
        "a.test",
        id="resolved for another port, and expired on this one",
    ),
    pytest.param([("learned", A, 300, PRIVATE_FLAG)], Reason.DENIED_PRIVATE_ADDRESS, "a.test", id="private"),
    pytest.param(
        [("learned", A, LONG_AGO, PRIVATE_FLAG)],
        Reason.DENIED_PRIVATE_ADDRESS,
        "a.test",
        id="private, and expired: asking again would not help",
    ),
    pytest.param(
        [("learned", A, 300, PRIVATE_FLAG), ("learned", B, 300, 0)],
        Reason.ALLOWED_LEARNED,
        "b.test",
        id="private for one rule, open by another",
    ),
    pytest.param(
        [("learned", B, 300, PRIVATE_FLAG), ("learned", A, 300, 0)],
        Reason.ALLOWED_LEARNED,
        "a.test",
        id="open by one rule, private for another",
    ),
    pytest.param(
        [("seeded", A, 300, PRIVATE_FLAG), ("learned", A, 300, 0)],
        Reason.ALLOWED_LEARNED,
        "a.test",
        id="private when resolved, open when learned",
    ),
    pytest.param(
        [("seeded", A, 300, 0), ("learned", A, 300, PRIVATE_FLAG)],
        Reason.ALLOWED_LEARNED,
        "a.test",
        id="open when resolved, private when learned",
    ),
    pytest.param(
        [("learned", A, 300, PRIVATE_FLAG), ("learned", B, -1, 0)],
        Reason.ALLOWED_GRACE,
        "b.test",
        id="private for one rule, in its grace by another",
    ),
    pytest.param(
        [("learned", A, 300, PRIVATE_FLAG), ("learned", B, LONG_AGO, 0)],
        Reason.DENIED_EXPIRED,
        "b.test",
        id="private for one rule, expired by another",
    ),
    pytest.param(
        [("learned", A, LONG_AGO, 0), ("learned", B, 300, PRIVATE_FLAG)],
        Reason.DENIED_EXPIRED,
        "a.test",
        id="expired by one rule, private for another",
    ),
    pytest.param(
        [("learned", A, 300, PRIVATE_FLAG), ("learned", C, 300, 0)],
        Reason.DENIED_PRIVATE_ADDRESS,
        "a.test",
        id="private, and open on another port",
    ),
    pytest.param(
        [("learned", C, 300, PRIVATE_FLAG)], Reason.DENIED_PORT, "c.test", id="private on another port"
    ),
    pytest.param(
        [("seeded", A, -1, 0), ("learned", A, LONG_AGO, 0)],
        Reason.ALLOWED_GRACE,
        "a.test",
        id="resolved and in its grace, learned and expired",
    ),
    pytest.param(
        [("learned", ports, 300, 0) for ports in (REGISTRY, A, B, C, (53, 443, 853))],
        Reason.ALLOWED_LEARNED,
        "registry.test",
        id="every list: the first that has the port",
    ),
]


@pytest.mark.parametrize(("kept", "reason", "pattern"), LISTS)
def test_lists_of_ports(bench: Bench, kept: list[Kept], reason: Reason, pattern: str) -> None:
    rules = {rule.ports: rule.rank for rule in bench.plane.tables.rules.names}
    for table, ports, seconds, flags in kept:
        bench.open(table, LEARNED, ports, seconds, rules[ports], flags)
    source = EventSource(bench.plane)
    told: list[Event] = []
    try:
        with bench.configured(Settings(grace=GRACE)):
            assert bench.egress(syn(LEARNED)) is reason.name.startswith("ALLOWED_")
        # What may leave is told in audit mode no more than else: its rule shows in the socket's memory alone.
        source.drain(told.append)
    finally:
        source.close()
    assert bench.counted() == {reason: 1}
    if reason.name.startswith("DENIED_"):
        (event,) = told
        assert event.rule == (bench.rule_of(pattern) if pattern else 0)


@pytest.mark.parametrize(("options", "acknowledged"), [([], 0x12345678), ([IPOption_NOP()], 0)])
def test_what_a_refused_segment_acknowledges(bench: Bench, options: list[object], acknowledged: int) -> None:
    """By which it can be reset. What is refused before its ports are read acknowledges nothing."""
    packet = ip(UNKNOWN, options=options) / TCP(sport=40000, dport=443, flags="PA", ack=0x12345678) / b"x"
    told: list[Event] = []
    with contextlib.closing(EventSource(bench.plane)) as source:
        assert not bench.egress(packet)
        source.drain(told.append)
    assert [event.acknowledged for event in told] == [acknowledged]


def test_resolver_is_asked_before_what_a_name_says(bench: Bench) -> None:
    """An allowed name may have a resolver's address: its packets are still looked into."""
    bench.open("learned", RESOLVER, (53, 443, 853), 300)
    assert bench.egress(udp(RESOLVER, 53))
    assert bench.counted() == {Reason.ALLOWED_RESOLVER: 1, Reason.DNS_NOT_A_QUERY: 1}

"""Posture registries: what is recognised as a registry's is judged, and all else passes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrRouting
from scapy.packet import Packet, Raw

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.abi import Reason, Unknown, Verdict
from ram_ebpf.dataplane.events import Event, EventSource
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.tables import refused_list

from . import messages as m
from .exchanges import ONE, SIX, THREE, TWO, ask, exchange, play, tell
from .messages import address, cname, hint, service
from .support import CLIENT, Bench, ip

REGISTRIES = """
  - host: registry.test
  - host: "**.azurecr.io"
  - host: private.test
    private: [10.20.0.0/16]
  - address: 198.51.100.0/24
    ports: [5000]
"""
DENIED_NAMES = """
  - banned.test
  - "*.banned.test"
"""
RECOGNITION = Settings(loopback=0, registry_ports=(5000,), asked_ports=(443, 8080))
OTHER = "203.0.113.9"


def syn(destination: str, port: int = 22) -> Packet:
    return ip(destination) / TCP(dport=port, flags="S")


def judge(bench: Bench, packet: Packet) -> Reason:
    """Why a packet is let through or not, which are the same in both."""
    bench.counted()
    passed = bench.egress(packet)
    (reason,) = bench.counted()
    assert passed is not reason.name.startswith("DENIED")
    return reason


def learn(bench: Bench, name: str, *addresses: str, counted: Reason = Reason.DNS_RECOGNISED) -> None:
    play(bench, ask(name), tell(*map(address, addresses), name=name, counted=counted))


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(syn(OTHER), id="TCP"),
        pytest.param(syn(OTHER, 443), id="HTTPS while nobody asks"),
        pytest.param(syn("2001:db8::9", 853), id="DNS over TLS"),
        pytest.param(ip(OTHER) / UDP(dport=53) / Raw(b"x" * 20), id="another resolver"),
        pytest.param(ip(OTHER) / UDP(dport=443), id="QUIC"),
        pytest.param(ip(OTHER) / UDP(dport=5000), id="UDP to a registry port"),
        pytest.param(ip(OTHER, proto=47) / Raw(b"\0" * 8), id="GRE"),
        pytest.param(ip(OTHER, frag=100, proto=6) / Raw(b"\0" * 64), id="a later fragment"),
        pytest.param(ip("10.1.2.3") / TCP(dport=22, flags="S"), id="a private address"),
    ],
)
def test_other_traffic_passes(bench: Bench, packet: Packet) -> None:
    assert judge(bench, packet) is Reason.ALLOWED_OTHER


def test_icmp_passes(bench: Bench) -> None:
    assert judge(bench, ip(OTHER) / ICMP()) is Reason.ALLOWED_PROTOCOL


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (ip(OTHER, proto=6) / Raw(b"\1\2\3"), Reason.DENIED_MALFORMED),
        (
            ip("2001:db8::9") / IPv6ExtHdrRouting(addresses=["2001:db8::a"]) / TCP(dport=443, flags="S"),
            Reason.DENIED_SOURCE_ROUTE,
        ),
    ],
    ids=["cut off", "a source route"],
)
def test_what_hides_where_it_goes_is_refused(bench: Bench, packet: Packet, reason: Reason) -> None:
    assert judge(bench, packet) is reason


def test_registry_port(bench: Bench) -> None:
    assert judge(bench, syn(OTHER, 5000)) is Reason.DENIED_REGISTRY_PORT
    assert judge(bench, syn("198.51.100.7", 5000)) is Reason.ALLOWED_ADDRESS
    assert judge(bench, syn("198.51.100.7", 5001)) is Reason.ALLOWED_OTHER
    with bench.configured(replace(RECOGNITION, registry_ports=())):
        assert judge(bench, syn(OTHER, 5000)) is Reason.ALLOWED_OTHER
        assert judge(bench, syn(OTHER, 0)) is Reason.ALLOWED_OTHER
    with bench.configured(replace(RECOGNITION, registry_ports=tuple(range(1, 9)))):
        assert judge(bench, syn(OTHER, 8)) is Reason.DENIED_REGISTRY_PORT
        assert judge(bench, syn(OTHER, 9)) is Reason.ALLOWED_OTHER


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("quay.io", id="of the catalogue"),
        pytest.param("Quay.IO", id="in another case"),
        pytest.param("eu-docker.pkg.dev", id="by a glob of the catalogue"),
        pytest.param("banned.test", id="denied"),
        pytest.param("a.banned.test", id="denied by a star"),
    ],
)
@pytest.mark.parametrize("found", [ONE, "10.0.0.9", "127.0.0.9"], ids=["public", "private", "loopback"])
def test_address_of_a_registry(bench: Bench, name: str, found: str) -> None:
    assert judge(bench, syn(found, 443)) is Reason.ALLOWED_OTHER
    learn(bench, name, found)
    for port in (443, 80, 22):
        assert judge(bench, syn(found, port)) is Reason.DENIED_REGISTRY
    assert judge(bench, ip(found) / UDP(dport=443)) is Reason.DENIED_REGISTRY
    assert judge(bench, syn(TWO, 443)) is Reason.ALLOWED_OTHER


def test_refusal_ends_with_the_answer(bench: Bench) -> None:
    learn(bench, "quay.io", ONE)
    ((key, value),) = bench.map("learned").items()
    opening = abi.Opening.from_buffer_copy(value)
    assert abi.OpeningKey.from_buffer_copy(key).port_list == refused_list(None)
    for left, reason in ((-20, Reason.DENIED_REGISTRY), (-40, Reason.ALLOWED_OTHER)):
        opening.expires_ns = max(clock.now_ns() + left * clock.NANOSECONDS, 1)
        bench.map("learned")[key] = bytes(opening)
        assert judge(bench, syn(ONE, 443)) is reason


@pytest.mark.parametrize("name", ["quay.io.test", "xquay.io", "registry.quay.io.evil.test", "cdn.quay.io"])
def test_names_that_only_look_like_it(bench: Bench, name: str) -> None:
    learn(bench, name, ONE, counted=Reason.DNS_NOT_LISTED)
    assert judge(bench, syn(ONE, 443)) is Reason.ALLOWED_OTHER


def test_what_the_policy_allows_beats_the_catalogue(bench: Bench) -> None:
    """Also by a pattern that says less than the catalogue's."""
    learn(bench, "acme.azurecr.io", ONE, counted=Reason.DNS_LEARNED)
    assert judge(bench, syn(ONE, 443)) is Reason.ALLOWED_LEARNED
    assert judge(bench, syn(ONE, 8443)) is Reason.ALLOWED_OTHER


def test_address_that_an_allowed_name_shares(bench: Bench) -> None:
    learn(bench, "quay.io", ONE)
    learn(bench, "registry.test", ONE, counted=Reason.DNS_LEARNED)
    assert judge(bench, syn(ONE, 443)) is Reason.ALLOWED_LEARNED
    assert judge(bench, syn(ONE, 8443)) is Reason.DENIED_REGISTRY


def test_allowed_name_at_a_private_address_that_it_should_not_have(bench: Bench) -> None:
    play(
        bench,
        ask("private.test"),
        tell(
            address("10.9.0.1"),
            address("10.20.0.1"),
            name="private.test",
            counted=Reason.DNS_LEARNED,
        ),
    )
    assert judge(bench, syn("10.20.0.1", 443)) is Reason.ALLOWED_LEARNED
    assert judge(bench, syn("10.9.0.1", 443)) is Reason.DENIED_PRIVATE_ADDRESS
    assert judge(bench, syn("10.9.0.1", 22)) is Reason.ALLOWED_OTHER


def test_alias_chain_of_a_registry(bench: Bench) -> None:
    play(
        bench,
        ask("quay.io"),
        tell(
            cname("lb.test"),
            address(ONE, owner=m.wire("lb.test")),
            name="quay.io",
            counted=Reason.DNS_RECOGNISED,
        ),
    )
    assert judge(bench, syn(ONE, 443)) is Reason.DENIED_REGISTRY


def test_alias_asked_for_in_a_query_of_its_own(bench: Bench) -> None:
    play(
        bench,
        ask("quay.io"),
        tell(cname("lb.test"), name="quay.io", counted=Reason.DNS_ALIAS),
        ask("lb.test"),
        tell(address(ONE), name="lb.test", counted=Reason.DNS_RECOGNISED),
    )
    assert judge(bench, syn(ONE, 443)) is Reason.DENIED_REGISTRY


def test_https_hints_of_a_registry(bench: Bench) -> None:
    play(
        bench,
        ask("quay.io", m.HTTPS),
        tell(service(hint(ONE)), name="quay.io", qtype=m.HTTPS, counted=Reason.DNS_RECOGNISED),
    )
    assert judge(bench, syn(ONE, 443)) is Reason.DENIED_REGISTRY


def test_every_address_of_a_long_reply(bench: Bench) -> None:
    found = [f"192.0.2.{number}" for number in range(1, 41)]
    learn(bench, "quay.io", *found)
    assert all(judge(bench, syn(text, 443)) is Reason.DENIED_REGISTRY for text in found)


def test_ipv6(bench: Bench) -> None:
    play(
        bench,
        ask("quay.io", m.AAAA),
        tell(address(SIX), name="quay.io", qtype=m.AAAA, counted=Reason.DNS_RECOGNISED),
    )
    assert judge(bench, syn(SIX, 443)) is Reason.DENIED_REGISTRY


def test_names_may_be_asked_for_whatever_the_policy_says_of_other_scopes(bench: Bench) -> None:
    with bench.configured(replace(RECOGNITION, allowed_names_only=True)):
        play(bench, ask("anything.test"), ask("quay.io"))


def test_what_user_space_has_found(bench: Bench) -> None:
    """An address is refused on the port on which a registry answered."""
    expires = clock.now_ns() + 60 * clock.NANOSECONDS
    rule = bench.plane.tables.number_of_found({8080})
    key = abi.opening_key(ip_address(ONE), refused_list(8080))
    bench.plane.maps["seeded"][key] = bytes(abi.Opening(expires, rule, 0))
    assert judge(bench, syn(ONE, 8080)) is Reason.DENIED_REGISTRY
    assert judge(bench, syn(ONE, 443)) is Reason.ALLOWED_OTHER


@pytest.mark.parametrize(
    ("ports", "refused"),
    [({443}, (443,)), ({8080}, (8080,)), ({443, 8080}, (443, 8080, 22))],
    ids=["one", "another", "both"],
)
@pytest.mark.parametrize("name", ["found.test", "deep.down.in.a.long.name.test", "azurecr.io"])
def test_name_that_user_space_has_found(
    bench: Bench, name: str, ports: set[int], refused: tuple[int, ...]
) -> None:
    (view,) = bench.plane.views
    key = view.tables.key_of(name)
    before = view.maps["names"].get(key)
    view.refuse_name(name, view.tables.number_of_found(ports))
    try:
        learn(bench, name, THREE)
        for port in (443, 8080, 22):
            expected = Reason.DENIED_REGISTRY if port in refused else Reason.ALLOWED_OTHER
            assert judge(bench, syn(THREE, port)) is expected
        learn(bench, f"x.{name}", TWO, counted=_of_child(name))  # which is another name
    finally:
        if before is None:
            view.maps["names"].discard(key)
        else:
            view.maps["names"][key] = before


def _of_child(name: str) -> Reason:
    return Reason.DNS_LEARNED if name == "azurecr.io" else Reason.DNS_NOT_LISTED


@pytest.fixture
def source(bench: Bench) -> Iterator[EventSource]:
    source = EventSource(bench.plane)
    yield source
    source.close()


def taken(source: EventSource) -> list[Event]:
    events: list[Event] = []
    source.drain(events.append)
    return events


@pytest.mark.parametrize(
    ("unknown", "reason", "verdict"),
    [
        (Unknown.PROBE, Reason.ALLOWED_UNASKED, Verdict.ALLOW),
        (Unknown.DENY, Reason.DENIED_UNASKED, Verdict.DENY),
    ],
)
def test_user_space_is_told_of_what_nobody_has_asked(
    bench: Bench, source: EventSource, unknown: Unknown, reason: Reason, verdict: Verdict
) -> None:
    with bench.configured(replace(RECOGNITION, unknown=unknown)):
        assert judge(bench, syn(OTHER, 443)) is reason
        (event,) = taken(source)
        assert (event.reason, event.verdict, event.port) == (reason, verdict, 443)
        assert event.address == ip_address(OTHER)
        assert event.packet[12:16] == ip_address(CLIENT).packed  # by which the connection is known
        assert judge(bench, syn(OTHER, 22)) is Reason.ALLOWED_OTHER
        assert judge(bench, ip(OTHER) / UDP(dport=443)) is Reason.ALLOWED_OTHER

        asked = bench.plane.maps["asked"]
        key = abi.endpoint(ip_address(OTHER), 443)
        asked[key] = struct.pack("=Q", clock.now_ns() + 60 * clock.NANOSECONDS)
        assert judge(bench, syn(OTHER, 443)) is Reason.ALLOWED_OTHER
        assert judge(bench, syn(OTHER, 8080)) is reason
        asked[key] = struct.pack("=Q", 1)
        assert judge(bench, syn(OTHER, 443)) is reason


def test_audit_lets_registries_pass(bench: Bench, source: EventSource) -> None:
    learn(bench, "quay.io", ONE)
    with bench.configured(replace(RECOGNITION, mode=abi.Mode.AUDIT)):
        bench.counted()
        assert bench.egress(syn(ONE, 443))
        assert bench.egress(syn(OTHER, 5000))
        assert bench.counted() == {Reason.DENIED_REGISTRY: 1, Reason.DENIED_REGISTRY_PORT: 1}
    events = [event for event in taken(source) if event.verdict is not Verdict.NONE]
    assert [event.verdict for event in events] == [Verdict.WOULD_DENY, Verdict.WOULD_DENY]


def test_event_names_the_rule(bench: Bench, source: EventSource) -> None:
    exchange(bench, ask("quay.io"), tell(address(ONE), name="quay.io"))
    bench.egress(syn(ONE, 443))
    recognised, denied = taken(source)
    assert recognised.reason is Reason.DNS_RECOGNISED
    assert recognised.dns_message
    assert bench.pattern_of(recognised.rule) == bench.pattern_of(denied.rule) == "quay.io"

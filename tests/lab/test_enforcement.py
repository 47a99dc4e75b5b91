"""What a policy allows works and what it does not allow fails at once, with a reason: the main job."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from ram_ebpf.dataplane import features
from tests.adversarial.actor import Actor
from tests.adversarial.field import PORT, governed, tcp_connect, wait_denied, wait_line

from . import topology
from .daemon import Daemon
from .lab import Lab
from .pace import PACE

UNKNOWN = "denied-unknown-address"
MESSAGE = "Ask platform@registry.test to allow it."
DNS_OVER_HTTPS = "a resolver that speaks DNS over HTTPS, and not one of the trusted ones"
AT_ONCE = 2.0 * PACE  # seconds; the aim is 0.2, most of which is the start of skopeo

POLICY = f"""\
version: 1
organization: lab
message: {MESSAGE}
registries:
  - host: allowed.registry.test
    private: true
  - host: v6only.registry.test
    private: true
  - host: many.registry.test
    private: true
  - host: alias.registry.test
    private: true
refusals:
  responder: off
resolvers: [{Lab.resolver}]
"""


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Daemon]:
    with governed(lab, POLICY) as result:
        yield result


@pytest.fixture
def inside(lab: Lab, daemon: Daemon) -> Iterator[Actor]:
    with Actor(lab.client, lab.client_cgroup) as result:
        yield result


def wait_event(daemon: Daemon, start: int, event: str, host: str) -> dict[str, Any]:
    def wanted(line: dict[str, Any]) -> bool:
        return line["event"] == event and line.get("host") == host

    return wait_line(daemon, start, wanted, f"{host} {event}")


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("allowed.registry.test", id="both families", marks=pytest.mark.core),
        pytest.param("v6only.registry.test", id="IPv6 only"),
        pytest.param("alias.registry.test", id="alias chain"),
        pytest.param("many.registry.test", id="many addresses"),
        pytest.param("ALLOWED.Registry.test", id="letter case"),
    ],
)
def test_allowed_pull(lab: Lab, daemon: Daemon, host: str) -> None:
    start = len(daemon.lines())
    lab.client.pull(
        f"{host}:443/{lab.image_name}" if host.endswith(".") else f"{host}/{lab.image_name}"
    ).check()
    line = wait_event(daemon, start, "allowed", host.lower())
    assert line["reason"] == "allowed-learned"
    assert line["verdict"] == "allow"
    assert not [
        line
        for line in daemon.lines()[start:]
        if (line["event"], line.get("host")) == ("denied", host.lower())
    ]


def test_every_address_of_an_allowed_name(lab: Lab, inside: Actor) -> None:
    inside.resolve("many.registry.test")
    for address in topology.MANY:
        tcp_connect(inside, address)
        inside.reset()


@pytest.mark.core
def test_not_listed(lab: Lab, daemon: Daemon, record_property: Callable[[str, object], None]) -> None:
    start = len(daemon.lines())
    connections = lab.blocked.counters()["Tcp.PassiveOpens"]
    pull = lab.client.pull(f"blocked.registry.test/{lab.image_name}")
    record_property("seconds", pull.seconds)
    print(f"refused in {pull.seconds:.3f} s")
    assert not pull.ok
    assert "operation not permitted" in pull.stderr
    assert pull.seconds < AT_ONCE
    assert lab.blocked.counters()["Tcp.PassiveOpens"] == connections
    line = wait_event(daemon, start, "denied", "blocked.registry.test")
    assert_refusal(line, lab)
    assert line["explanation"] == "blocked.registry.test is not in the policy"
    if "-DRAM_HAVE_SOCK_ADDR_TASK" in features.compiler_flags():
        assert line["process"] == "skopeo"
        assert line["pid"] > 1


def assert_refusal(line: dict[str, Any], lab: Lab) -> None:
    assert line["verdict"] == "deny"
    assert line["reason"] == UNKNOWN
    assert line["address"] in lab.blocked.addresses
    assert line["port"] == PORT
    assert line["protocol"] == "tcp"
    assert line["message"] == MESSAGE
    assert line["uid"] == 0
    if "cgroup" in line:
        assert line["cgroup"].endswith(f"/{lab.client_cgroup.name}")


@pytest.mark.parametrize("address", [topology.BLOCKED, topology.BLOCKED_V6, topology.NOTALLOWED])
def test_not_listed_by_address(lab: Lab, daemon: Daemon, inside: Actor, address: str) -> None:
    with Actor(
        lab.client, lab.client_cgroup
    ) as fresh:  # another process than in other tests: nothing held back
        start = len(daemon.lines())
        connections = lab.blocked.counters()["Tcp.PassiveOpens"]
        with pytest.raises(PermissionError):
            tcp_connect(fresh, address)
        assert lab.blocked.counters()["Tcp.PassiveOpens"] == connections
        line = wait_denied(daemon, start, address)
    assert_refusal(line, lab)


@pytest.mark.parametrize(
    ("address", "port", "kind", "reason", "explanation"),
    [
        pytest.param(
            "203.0.113.53",
            53,
            socket.SOCK_STREAM,
            "denied-resolver",
            "not one of the trusted resolvers",
            id="DNS",
        ),
        pytest.param(
            "203.0.113.53",
            853,
            socket.SOCK_STREAM,
            "denied-dns-over-tls",
            "DNS over TLS to a server that is not one of the trusted resolvers",
            id="DNS over TLS",
        ),
        pytest.param(
            "203.0.113.53",
            853,
            socket.SOCK_DGRAM,
            "denied-dns-over-quic",
            "DNS over QUIC to a server that is not one of the trusted resolvers",
            id="DNS over QUIC",
        ),
        pytest.param(
            "2001:db8::53",
            853,
            socket.SOCK_STREAM,
            "denied-dns-over-tls",
            "DNS over TLS to a server that is not one of the trusted resolvers",
            id="DNS over TLS and IPv6",
        ),
        pytest.param(
            "1.1.1.1", 443, socket.SOCK_STREAM, "denied-dns-over-https", DNS_OVER_HTTPS, id="DNS over HTTPS"
        ),
        pytest.param(
            "1.1.1.1", 443, socket.SOCK_DGRAM, "denied-dns-over-https", DNS_OVER_HTTPS, id="DNS over HTTP/3"
        ),
        pytest.param(
            "2001:4860:4860::8888",
            443,
            socket.SOCK_STREAM,
            "denied-dns-over-https",
            DNS_OVER_HTTPS,
            id="DNS over HTTPS and IPv6",
        ),
        pytest.param(
            "1.1.1.1",
            80,
            socket.SOCK_STREAM,
            UNKNOWN,
            "no trusted DNS reply gave this address for an allowed name",
            id="such a server by another port",
        ),
    ],
)
def test_other_ways_to_resolve(
    lab: Lab,
    daemon: Daemon,
    inside: Actor,
    address: str,
    port: int,
    kind: socket.SocketKind,
    reason: str,
    explanation: str,
) -> None:
    start = len(daemon.lines())
    item = inside.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    attempts = {
        socket.SOCK_STREAM: partial(item.connect, (address, port)),
        socket.SOCK_DGRAM: partial(item.sendto, b"x", (address, port)),
    }
    with pytest.raises(PermissionError):
        attempts[kind]()
    line = wait_denied(daemon, start, address, port)
    assert (line["reason"], line["explanation"]) == (reason, explanation)
    assert line["message"] == MESSAGE


def test_address_of_a_name_that_serves_dns_over_https(lab: Lab, daemon: Daemon, inside: Actor) -> None:
    """Their addresses change; who asks for such a name is told of those that it has now."""
    name, address = "test.dns.google", "203.0.113.80"
    lab.dns.set_records(name, [address])
    start = len(daemon.lines())
    assert inside.resolve(name) == [address]
    with pytest.raises(PermissionError):
        tcp_connect(inside, address)
    line = wait_denied(daemon, start, address)
    lab.dns.remove(name)
    assert (line["reason"], line["host"], line["explanation"]) == (
        "denied-dns-over-https",
        name,
        DNS_OVER_HTTPS,
    )


def test_other_registries_name_in_the_same_domain(lab: Lab, daemon: Daemon) -> None:
    start = len(daemon.lines())
    assert "operation not permitted" in lab.client.pull(f"notallowed.registry.test/{lab.image_name}").stderr
    wait_event(daemon, start, "denied", "notallowed.registry.test")


def test_beside_the_scope_all_works(lab: Lab, daemon: Daemon) -> None:
    with Actor(lab.client) as outside:
        tcp_connect(outside, topology.BLOCKED)


@pytest.mark.parametrize(
    ("address", "family"),
    [
        pytest.param(topology.CLIENT, socket.AF_INET, id="IPv4", marks=pytest.mark.core),
        pytest.param(topology.CLIENT_V6, socket.AF_INET6, id="IPv6"),
    ],
)
def test_inbound_connection(lab: Lab, inside: Actor, address: str, family: int) -> None:
    server = inside.socket(family, socket.SOCK_STREAM)
    server.bind((address, 0))
    server.listen()
    with Actor(lab.blocked.node) as far:
        client = far.socket(family, socket.SOCK_STREAM)
        client.connect((address, server.port()))
        accepted = server.accept()
        client.send(b"question")
        assert accepted.recv() == b"question"
        accepted.send(b"answer")
        assert client.recv() == b"answer"


@pytest.mark.parametrize(
    ("address", "port"),
    [
        pytest.param(topology.BLOCKED, 443, id="UDP 443"),
        pytest.param(topology.BLOCKED_V6, 443, id="UDP 443 over IPv6"),
        pytest.param(topology.BLOCKED, 123, id="another port"),
    ],
)
def test_udp(lab: Lab, daemon: Daemon, inside: Actor, address: str, port: int) -> None:
    start = len(daemon.lines())
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    before = lab.blocked.counters()
    with pytest.raises(PermissionError):
        inside.socket(family, socket.SOCK_DGRAM).sendto(b"x", (address, port))
    with pytest.raises(PermissionError):
        inside.socket(family, socket.SOCK_DGRAM).connect((address, port))
    # A stub resolver that only wants to know its source address is not in the way of enforcement.
    probe = inside.socket(family, socket.SOCK_DGRAM)
    probe.connect((address, 9))
    with pytest.raises(PermissionError):
        probe.send(b"x")
    after = lab.blocked.counters()
    for counter in ("Udp.NoPorts", "Udp.InDatagrams", "Udp6NoPorts", "Udp6InDatagrams"):
        assert after[counter] == before[counter], counter
    line = wait_denied(daemon, start, address, port)
    assert (line["reason"], line["protocol"]) == (UNKNOWN, "udp")


@pytest.mark.parametrize("address", [pytest.param("127.0.0.1", id="IPv4"), pytest.param("::1", id="IPv6")])
def test_loopback(lab: Lab, daemon: Daemon, inside: Actor, address: str) -> None:
    """A strict scope reaches registries and resolvers, and nothing else, not even this host."""
    start = len(daemon.lines())
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with Actor(lab.client) as local:
        server = local.socket(family, socket.SOCK_STREAM)
        server.bind((address, 0))
        server.listen()
        port = server.port()
        with pytest.raises(PermissionError):
            tcp_connect(inside, address, port)
        tcp_connect(local, address, port)
    line = wait_denied(daemon, start, address, port)
    assert line["reason"] == UNKNOWN

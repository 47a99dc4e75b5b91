"""Learning from the replies that real servers give real clients: what is allowed works on the first try."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.adversarial.actor import Actor
from tests.adversarial.field import governed, tcp_connect, wait_line

from .daemon import Daemon
from .dns_lab import ADDRESSES, CLIENTS, OWNER, SERVERS, DnsLab, Reached, dns_lab
from .lab import Lab
from .zones import Zones

MANY = 200
FORTY = 40  # too many for 512 octets

# The wildcard keeps the daemon from looking names up ahead of the client. Nothing names other.test.
POLICY = f"""\
version: 1
registries:
  - host: "**.zone.test"
    private: true
refusals:
  responder: off
resolvers: {list(ADDRESSES.values())}
dns: {{ grace_seconds: 0 }}
"""


def zones() -> Zones:
    """Each test has a name with addresses of its own: what one has learned must not help another."""
    result = Zones(OWNER)
    result.subtree("old.zone.test", "new.other.test")
    for server in SERVERS:
        for client in CLIENTS:
            result.host(f"{client}-{server}.zone.test")
            result.host(f"{client}-{server}.other.test")
        for how in ("udp", "glibc", "go"):
            result.host(f"many-{how}-{server}.zone.test", MANY, 0)
        for client in ("glibc", "musl", "c-ares"):
            result.host(f"forty-{client}-{server}.zone.test", FORTY, FORTY)
        result.host(f"tcp-{server}.zone.test")
        result.host(f"zero-{server}.zone.test", ttl=0)
        result.host(f"one-{server}.zone.test", ttl=1)
        result.host(f"{server}.new.other.test")
        result.host(f"web-{server}.zone.test")
        result.service(f"web-{server}.zone.test")
        links = [f"link-{number}-{server}.other.test" for number in range(2, 7)]
        result.host(links[-1])
        result.chain(f"link-1-{server}.zone.test", *links)
    return result


@pytest.fixture(scope="module")
def servers(
    lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DnsLab]:
    """The servers that the chosen tests name run before the daemon, as they would on a host."""
    chosen = [item.name for item in request.session.items if item.path == request.path]
    with dns_lab(lab, zones(), tmp_path_factory.mktemp("dns")) as result:
        for server in SERVERS:
            if any(server in name or "[" not in name for name in chosen):
                result.server(server)
        yield result


@pytest.fixture(scope="module")
def daemon(lab: Lab, servers: DnsLab) -> Iterator[Daemon]:
    with governed(lab, POLICY) as result:
        yield result


@pytest.fixture(scope="module")
def inside(lab: Lab, daemon: Daemon) -> Iterator[Actor]:
    with Actor(lab.client, lab.client_cgroup) as result:
        yield result


def assert_reached(servers: DnsLab, name: str, reached: Reached) -> None:
    """All addresses of the name that the client tells of, and no others, took it at once."""
    assert reached.ok, reached.said
    if reached.errors:
        assert set(reached.errors) == set(servers.zones.addresses[name])


def wait_event(servers: DnsLab, daemon: Daemon, start: int, event: str, name: str) -> dict[str, Any]:
    """The first line of that kind about an address of the name."""
    addresses = servers.zones.addresses[name]

    def wanted(line: dict[str, Any]) -> bool:
        return line.get("event") == event and line.get("address") in addresses

    return wait_line(daemon, start, wanted, f"{event} for {name}")


def every_address_is_open(servers: DnsLab, inside: Actor, name: str) -> None:
    for address in servers.zones.addresses[name]:
        tcp_connect(inside, address)
    inside.reset()


def pairs(clients: Iterable[str], *central: tuple[str, str]) -> pytest.MarkDecorator:
    """Each server with each client; the central ones also run in a guest, where everything takes long."""
    return pytest.mark.parametrize(
        ("server", "client"),
        [
            pytest.param(server, client, marks=[pytest.mark.core] if (server, client) in central else [])
            for server in SERVERS
            for client in clients
        ],
    )


@pairs(CLIENTS, ("local", "musl"))
def test_listed_name(servers: DnsLab, daemon: Daemon, server: str, client: str) -> None:
    name = f"{client}-{server}.zone.test"
    start = len(daemon.lines())
    assert_reached(servers, name, servers.reach(client, server, name))
    line = wait_event(servers, daemon, start, "allowed", name)
    assert line["reason"] == "allowed-learned"
    assert line["host"] == name
    assert not [line for line in daemon.lines()[start:] if line["event"] == "denied"]


@pairs(CLIENTS, ("local", "musl"))
def test_name_that_is_not_listed(servers: DnsLab, daemon: Daemon, server: str, client: str) -> None:
    name = f"{client}-{server}.other.test"
    start = len(daemon.lines())
    reached = servers.reach(client, server, name)
    assert reached.refused, reached.said
    wait_event(servers, daemon, start, "denied", name)


@pairs(["c-ares"], ("bind", "c-ares"))
def test_many_addresses_in_one_datagram(
    servers: DnsLab, daemon: Daemon, inside: Actor, server: str, client: str
) -> None:
    """More than 3000 octets: from another host they come in fragments."""
    name = f"many-udp-{server}.zone.test"
    assert_reached(servers, name, servers.cares(server, name, size=4096))
    every_address_is_open(servers, inside, name)


@pairs(["glibc"], ("bind", "glibc"))
def test_many_addresses_by_tcp(
    servers: DnsLab, daemon: Daemon, inside: Actor, server: str, client: str
) -> None:
    """Of a datagram glibc takes 512 octets, so it asks again by TCP."""
    name = f"many-{client}-{server}.zone.test"
    assert_reached(servers, name, servers.reach(client, server, name))
    every_address_is_open(servers, inside, name)


@pytest.mark.parametrize("server", ["unbound", "resolved"])
def test_many_addresses_for_go(servers: DnsLab, daemon: Daemon, inside: Actor, server: str) -> None:
    """Go takes 1232, and asks again by TCP too."""
    name = f"many-go-{server}.zone.test"
    assert_reached(servers, name, servers.reach("go", server, name))
    every_address_is_open(servers, inside, name)


@pairs(["glibc", "c-ares"])
def test_both_families_by_tcp(
    servers: DnsLab, daemon: Daemon, inside: Actor, server: str, client: str
) -> None:
    """Too many addresses for 512 octets in each family, and both are asked for at the same time."""
    name = f"forty-{client}-{server}.zone.test"
    assert_reached(servers, name, servers.reach(client, server, name))
    every_address_is_open(servers, inside, name)


@pytest.mark.parametrize("server", ["bind", "resolved"])
def test_part_of_the_addresses(servers: DnsLab, daemon: Daemon, server: str) -> None:
    """musl up to 1.2.3 takes what is there of a truncated reply; later ones ask again by TCP.

    unbound and dnsmasq send such a reply without any address, which this client cannot use.
    """
    name = f"forty-musl-{server}.zone.test"
    reached = servers.musl(server, name, name, name)  # another part each time
    assert reached.ok, reached.said
    assert len(reached.errors) >= FORTY / 2
    assert set(reached.errors) <= set(servers.zones.addresses[name])


@pytest.mark.parametrize("server", SERVERS)
def test_tcp_alone(servers: DnsLab, daemon: Daemon, server: str) -> None:
    name = f"tcp-{server}.zone.test"
    assert_reached(servers, name, servers.glibc(server, name, options="use-vc"))


@pairs(["musl", "c-ares"], ("local", "musl"))
def test_aliases_in_another_zone(servers: DnsLab, daemon: Daemon, server: str, client: str) -> None:
    name = f"link-1-{server}.zone.test"
    assert_reached(servers, name, servers.reach(client, server, name))


@pytest.mark.parametrize("server", SERVERS)
def test_subtree_in_another_zone(servers: DnsLab, daemon: Daemon, server: str) -> None:
    """A DNAME record, and the CNAME record that the server makes of it."""
    reached = servers.musl(server, f"{server}.old.zone.test")
    assert_reached(servers, f"{server}.new.other.test", reached)


def test_short_lives(servers: DnsLab, daemon: Daemon) -> None:
    """Caches count the time to live down; whenever a client asks, it has time to connect."""
    until = time.monotonic() + 2.2
    while time.monotonic() < until:
        for server in SERVERS:
            names = [f"zero-{server}.zone.test", f"one-{server}.zone.test"]
            reached = servers.cares(server, *names, *names)
            assert reached.ok, reached.said
            assert len(reached.errors) == 4


@pytest.mark.parametrize("server", SERVERS)
def test_hints(servers: DnsLab, daemon: Daemon, inside: Actor, server: str) -> None:
    """An HTTPS record says where a browser may connect before it has the addresses."""
    name = f"web-{server}.zone.test"
    assert "ipv4hint" in servers.dig(server, "+short", name, "HTTPS")
    every_address_is_open(servers, inside, name)

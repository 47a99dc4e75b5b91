"""Scopes that are devices: a member of the lab, governed at the switch's end of its cable."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from tests.adversarial.actor import Actor
from tests.adversarial.field import PORT, tcp_connect, wait_denied
from tests.adversarial.packets import ipv4, udp

from . import topology
from .lab import Lab
from .pace import PACE
from .switch import POLICY, SwitchDaemon, governed, programs_on

pytestmark = pytest.mark.root

AT_ONCE = 0.3 * PACE  # seconds


@pytest.fixture(scope="module", params=["device", "netns"])
def daemon(request: pytest.FixtureRequest, lab: Lab) -> Iterator[SwitchDaemon]:
    """The client by the switch's end of its cable, named by the device or by the client's namespace."""
    scope = {"device": "device:client", "netns": f"netns:{lab.client.namespace.name}"}[request.param]
    with governed(lab, POLICY, scope) as result:
        yield result


@pytest.fixture
def client(lab: Lab) -> Iterator[Actor]:
    """No control group is governed: wherever the client's programs live."""
    with Actor(lab.client) as result:
        yield result


@pytest.mark.core
def test_pulls(lab: Lab, daemon: SwitchDaemon) -> None:
    start = len(daemon.lines())
    lab.client.pull(f"cdn.allowed.registry.test/{lab.image_name}").check()
    refused = lab.client.pull(f"blocked.registry.test/{lab.image_name}")
    assert refused.returncode != 0
    assert "connection refused" in refused.stderr
    line = wait_denied(daemon, start, topology.BLOCKED)
    assert (line["host"], line["reason"]) == ("blocked.registry.test", "denied-unknown-address")
    assert line["scope"] in ("device client", f"netns {lab.client.namespace.name}")
    assert line["message"] == "Ask platform@acme.example."
    assert "pid" not in line


@pytest.mark.core
@pytest.mark.parametrize("address", [topology.BLOCKED, topology.BLOCKED_V6])
def test_connection_is_reset_at_once(daemon: SwitchDaemon, client: Actor, address: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        tcp_connect(client, address)
    assert time.monotonic() - started < AT_ONCE


@pytest.mark.core
@pytest.mark.parametrize("address", [topology.BLOCKED, topology.BLOCKED_V6])
def test_datagram_is_prohibited_at_once(daemon: SwitchDaemon, client: Actor, address: str) -> None:
    """connect() of a UDP socket makes ICMP errors its own."""
    item = client.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    item.connect((address, PORT))
    item.settimeout(2.0)
    item.send(b"x")
    with pytest.raises(OSError) as caught:
        item.recv()
    # include/linux/icmp: administratively prohibited is EHOSTUNREACH over IPv4, EACCES over IPv6.
    assert caught.value.errno == (errno.EACCES if ":" in address else errno.EHOSTUNREACH)


@pytest.mark.core
def test_packet_socket(lab: Lab, daemon: SwitchDaemon, client: Actor) -> None:
    """What passes no hook of a control group passes the device."""
    target = "203.0.113.77"
    start = len(daemon.lines())
    item = client.socket(socket.AF_PACKET, socket.SOCK_RAW)
    item.bind(("eth0", 0))
    packet = ipv4(topology.CLIENT, target, 17, udp(topology.CLIENT, target, PORT, b"x"))
    item.send(b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x08\0" + packet)
    line = wait_denied(daemon, start, target)
    assert line["protocol"] == "udp"


def test_wildcard_name(lab: Lab, daemon: SwitchDaemon, client: Actor) -> None:
    """Nobody has looked it up before: its reply is read on the way to the client."""
    name, address = f"fresh-{os.getpid()}.allowed.registry.test", topology.MANY[3]
    lab.dns.set_records(name, [address])
    with pytest.raises(ConnectionRefusedError):
        tcp_connect(client, address)
    assert client.resolve(name) == [address]
    tcp_connect(client, address)


def test_other_members_are_free(lab: Lab, daemon: SwitchDaemon) -> None:
    with Actor(lab.allowed.node) as neighbour:
        tcp_connect(neighbour, topology.BLOCKED)


def test_connections_from_others(lab: Lab, daemon: SwitchDaemon, client: Actor) -> None:
    """Only what the client begins is judged."""
    listening = client.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind((topology.CLIENT, 8080))
    listening.listen()
    with Actor(lab.blocked.node) as neighbour:
        tcp_connect(neighbour, topology.CLIENT, 8080)


def test_root_inside_cannot_take_it_off(lab: Lab, daemon: SwitchDaemon, client: Actor) -> None:
    """It may do what it likes with its own end of the cable."""
    before = programs_on(lab)
    assert len(before) == 2
    with IPRoute(netns=lab.client.namespace.name) as netlink:
        (index,) = netlink.link_lookup(ifname="eth0")
        (link,) = netlink.get_links(index)
        try:
            netlink.tc("add", "clsact", index)
            netlink.tc("del", "clsact", index)
            netlink.tc("replace", "pfifo", index, limit=100, parent=0xFFFFFFFF)
            netlink.link("set", index=index, address="02:00:00:00:00:77")
            assert programs_on(lab) == before
            with pytest.raises(OSError):
                tcp_connect(client, topology.BLOCKED)
        finally:
            # What a queue drops would be missed by tests that count packets.
            netlink.tc("del", "pfifo", index, parent=0xFFFFFFFF)
            netlink.link("set", index=index, address=link.get_attr("IFLA_ADDRESS"))

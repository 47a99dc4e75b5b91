"""What happens to scopes that are devices: they come and go, the daemon is killed, others lie for them."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tests.adversarial.actor import Actor
from tests.adversarial.field import eventually, tcp_connect, wait_denied, wait_line
from tests.adversarial.packets import ipv4, udp

from . import switch, topology
from .lab import Lab
from .switch import POLICY, SwitchDaemon, governed, programs_on

pytestmark = pytest.mark.root

PORT = 8081  # of a server that a test starts


@pytest.fixture
def client(lab: Lab) -> Iterator[Actor]:
    with Actor(lab.client) as result:
        yield result


def wait_said(daemon: SwitchDaemon, start: int, event: str, text: str) -> dict[str, Any]:
    return wait_line(
        daemon,
        start,
        lambda line: line["event"] == event and text in line["explanation"],
        f"{event} with {text!r}",
        patience=10.0,
    )


def plug(lab: Lab, name: str) -> None:
    """A cable from the switch to a new end in the client's namespace."""
    with IPRoute(netns=switch.of(lab).name) as netlink:
        peer = {"ifname": f"{name}-in", "net_ns_fd": lab.client.namespace.name}
        netlink.link("add", ifname=name, kind="veth", peer=peer)


def unplug(lab: Lab, name: str) -> None:
    with IPRoute(netns=switch.of(lab).name) as netlink:
        netlink.link("del", ifname=name)


def test_device_that_comes_and_goes(lab: Lab) -> None:
    with governed(lab, POLICY, "device:later", "device:client") as daemon:
        assert "device later: is not there; it is governed as soon as it is" in daemon.said()
        (ready,) = [line for line in daemon.lines() if line["event"] == "ready"]
        assert ready["scopes"] == ["device client"]
        for again in ("", " again"):
            start = len(daemon.lines())
            plug(lab, "later")
            wait_said(daemon, start, "scope-back", f"device later is governed{again}")
            unplug(lab, "later")
            wait_said(daemon, start, "scope-gone", "device later was removed from device later")


def test_further_way_out_of_a_namespace(lab: Lab) -> None:
    with governed(lab, POLICY, f"netns:{lab.client.namespace.name}") as daemon:
        start = len(daemon.lines())
        plug(lab, "second")
        try:
            wait_said(daemon, start, "scope-back", "device second is governed")
        finally:
            unplug(lab, "second")


# Devices that are made on one outside, and moved into a namespace: no end of theirs is at the switch.
BRANCHES: dict[str, dict[str, Any]] = {"macvlan": {"macvlan_mode": "bridge"}, "vlan": {"vlan_id": 5}}
BRANCH, FAR_END = "10.78.0.10", "10.78.0.30"


@contextlib.contextmanager
def branch(lab: Lab, kind: str) -> Iterator[None]:
    """One of the client's, on the switch's bridge. It leads to another address of the blocked registry."""
    client, blocked = lab.client.namespace.name, lab.blocked.node.namespace.name
    with IPRoute(netns=switch.of(lab).name) as netlink:
        (lower,) = netlink.link_lookup(ifname="bridge")
        made = {"ifname": "branch", "kind": kind, "link": lower, **BRANCHES[kind]}
        try:
            netlink.link("add", net_ns_fd=client, **made)
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                pytest.skip(f"this kernel has no {kind}")
            raise
    try:
        with IPRoute(netns=blocked) as netlink:
            (cable,) = netlink.link_lookup(ifname="eth0")
            netlink.link("add", **{**made, "link": cable})
            _address(netlink, FAR_END)
        with IPRoute(netns=client) as netlink:
            _address(netlink, BRANCH)
        yield
    finally:
        for name in (client, blocked):
            with IPRoute(netns=name) as netlink:
                for index in netlink.link_lookup(ifname="branch"):
                    netlink.link("del", index=index)


def _address(netlink: IPRoute, address: str) -> None:
    (index,) = netlink.link_lookup(ifname="branch")
    netlink.addr("add", index=index, address=address, prefixlen=24)
    netlink.link("set", index=index, state="up")


@pytest.mark.parametrize("kind", BRANCHES)
def test_way_out_that_has_no_end_here(lab: Lab, client: Actor, kind: str) -> None:
    """It is governed where it is, inside."""
    with branch(lab, kind), Actor(lab.blocked.node) as server:
        listening = server.socket(socket.AF_INET, socket.SOCK_STREAM)
        listening.bind((FAR_END, PORT))
        listening.listen()
        tcp_connect(client, FAR_END, PORT)
        with governed(lab, POLICY, f"netns:{lab.client.namespace.name}") as daemon:
            start = len(daemon.lines())
            with pytest.raises(ConnectionRefusedError):
                tcp_connect(client, FAR_END, PORT)
            line = wait_denied(daemon, start, FAR_END, PORT)
            assert line["scope"] == f"netns {lab.client.namespace.name}"
        tcp_connect(client, FAR_END, PORT)


def test_nothing_is_left_behind(lab: Lab) -> None:
    with governed(lab, POLICY, "device:client"):
        assert len(programs_on(lab)) == 2
    assert programs_on(lab) == []
    with Actor(lab.client) as client:
        tcp_connect(client, topology.BLOCKED)


def test_killed_daemon_leaves_enforcement_and_the_next_takes_over(lab: Lab) -> None:
    with SwitchDaemon(lab, POLICY, ["device:client"]) as daemon:
        daemon.signal(signal.SIGKILL)
    try:
        left = programs_on(lab)
        assert len(left) == 2
        with Actor(lab.client) as client, pytest.raises(ConnectionRefusedError):
            tcp_connect(client, topology.BLOCKED)
    finally:
        with governed(lab, POLICY, "device:client") as daemon:
            wait_said(daemon, 0, "replaced", "2 programs left by an earlier instance on device client")
            now = programs_on(lab)
            assert len(now) == 2
            assert not set(left) & set(now)
    assert programs_on(lab) == []


def test_second_instance(lab: Lab) -> None:
    with governed(lab, POLICY, "device:client"):
        with pytest.raises(RuntimeError, match="device client"), SwitchDaemon(lab, POLICY, ["device:client"]):
            pass
        assert len(programs_on(lab)) == 2


def test_audit(lab: Lab, client: Actor) -> None:
    with governed(lab, f"mode: audit\n{POLICY}", "device:client") as daemon:
        start = len(daemon.lines())
        tcp_connect(client, topology.BLOCKED)
        line = wait_line(daemon, start, lambda line: line["event"] == "would-deny", "what would be denied")
        assert line["address"] == topology.BLOCKED


def test_queries_outside_the_policy(lab: Lab) -> None:
    """Refused at once, with REFUSED, and the client's resolver does not wait for another answer."""
    policy = f"dns: {{allowed_names_only: true}}\n{POLICY}"
    with governed(lab, policy, "device:client") as daemon, Actor(lab.client) as client:
        start = len(daemon.lines())
        item = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        item.settimeout(2.0)
        question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04evil\x07example\0\0\x01\0\x01"
        item.sendto(question, (Lab.resolver, 53))
        reply = item.recv()
        assert reply[:4] == b"\x12\x34\x81\x85"  # a response, REFUSED
        assert reply[12:] == question[12:]
        line = wait_line(daemon, start, lambda line: line["event"] == "denied", "the refusal")
        assert (line["reason"], line["host"]) == ("denied-query-name", "evil.example")
        assert not any(line["event"] == "ignored-reply" for line in daemon.lines()[start:])


def test_two_members_that_lie_for_each_other(lab: Lab) -> None:
    """One tells the other, who sends as the resolver: what comes in by a governed device is no reply."""
    name, address = "collusion.allowed.registry.test", topology.NOTALLOWED
    with governed(lab, POLICY, "device:client", "device:allowed"), Actor(lab.client) as client:
        item = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
        item.bind((topology.CLIENT, 0))
        question = b"".join(bytes((len(p),)) + p for p in name.encode().split(b".")) + b"\0\0\x01\0\x01"
        item.sendto(b"\x77\x77\x01\0\0\x01\0\0\0\0\0\0" + question, ("10.77.0.54", 53))
        item.sendto(b"\x77\x77\x01\0\0\x01\0\0\0\0\0\0" + question, (Lab.resolver, 53))
        answer = b"\xc0\x0c\0\x01\0\x01\0\0\x01\x2c\0\x04" + socket.inet_aton(address)
        forged = b"\x77\x77\x81\x80\0\x01\0\x01\0\0\0\0" + question + answer
        with Actor(lab.allowed.node) as neighbour:
            raw = neighbour.socket(socket.AF_INET, socket.SOCK_RAW, 255)
            for _ in range(3):
                datagram = udp(Lab.resolver, topology.CLIENT, item.port(), forged, source_port=53)
                packet = ipv4(Lab.resolver, topology.CLIENT, 17, datagram)
                raw.sendto(packet, (topology.CLIENT, 0))
        assert not eventually(lambda: _connects(client, address), 0.5)


def _connects(client: Actor, address: str) -> bool:
    try:
        tcp_connect(client, address)
    except ConnectionRefusedError:
        return False
    return True

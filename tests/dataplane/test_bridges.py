"""Bridges that hold new containers: by tcx and by the clsact qdisc that older kernels have."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ram_ebpf.dataplane import devices, syscall
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.bridges import Bridges, choose_mark
from ram_ebpf.dataplane.devices import BusyDeviceError, Device
from ram_ebpf.dataplane.syscall import AttachType
from ram_ebpf.scopes.device import Links

from .exchanges import DENIED_NAMES, REGISTRIES
from .support import Bench
from .wire import own_network

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

HOST, ONE, TWO = "10.9.0.1", "10.9.0.2", "10.9.0.3"
PORT = 443
_KERNEL = syscall.program_attach


def without_tcx(target: int, program: int, attach_type: AttachType, flags: int) -> None:
    """As before Linux 6.6."""
    if attach_type in (AttachType.TCX_INGRESS, AttachType.TCX_EGRESS):
        raise OSError(errno.EINVAL, "bpf(PROG_ATTACH)")
    _KERNEL(target, program, attach_type, flags)


class Network:
    """A bridge of this host with two ports, and what is behind them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        with IPRoute() as netlink:
            netlink.link("add", ifname="bridge", kind="bridge")
            (bridge,) = netlink.link_lookup(ifname="bridge")
            netlink.addr("add", index=bridge, address=HOST, prefixlen=24)
            for name in ("one", "two"):
                netlink.link("add", ifname=name, kind="veth", peer={"ifname": f"in-{name}"})
                (port,) = netlink.link_lookup(ifname=name)
                netlink.link("set", index=port, master=bridge, state="up")
                netlink.link("set", index=netlink.link_lookup(ifname=f"in-{name}")[0], state="up")
            netlink.link("set", index=bridge, state="up")
            self._mac = netlink.get_links(bridge)[0].get_attr("IFLA_ADDRESS")
        links = Links.now()
        (self.bridge,) = links.bridges
        by_name = {cable.device.name: cable for cable in links.cables}
        self.one, self.two = by_name["one"].device, by_name["two"].device
        assert by_name["one"].bridge == "bridge"
        self._receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._receiver.bind((HOST, PORT))
        self._receiver.settimeout(0.3)

    def passes(self, name: str, source: str) -> bool:
        """Whether a datagram from behind a port reaches this host."""
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((f"in-{name}", 0))
            frame = Ether(dst=self._mac, src="02:00:00:00:00:01")
            sender.send(bytes(frame / IP(src=source, dst=HOST) / UDP(sport=1, dport=PORT) / b"x"))
        try:
            return self._receiver.recv(10) == b"x"
        except TimeoutError:
            return False

    def close(self) -> None:
        self._receiver.close()


@pytest.fixture(params=["the kernel's best", "clsact"])
def network(
    request: pytest.FixtureRequest, loaded: Bench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Network]:
    if request.param == "clsact":
        monkeypatch.setattr(syscall, "program_attach", without_tcx)
    loaded.reset()
    # Datagrams are sent here, and no name.
    with own_network(), loaded.configured(replace(loaded.settings, read_names=False)):
        made = Network(loaded)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def bridges(network: Network) -> Iterator[Bridges]:
    network.bench.plane.prepare_bridges([network.bridge])
    try:
        yield network.bench.plane.bridges
    finally:
        network.bench.plane.release_bridges()


def test_holds_all_that_are_not_known(network: Network, bridges: Bridges) -> None:
    assert network.passes("one", ONE)
    bridges.hold(network.bridge)
    assert not network.passes("one", ONE)
    assert network.bench.counted()[Reason.DENIED_NEW_CONTAINER] == 1
    bridges.let_pass(network.one)
    assert network.passes("one", ONE)
    assert not network.passes("two", TWO)
    # Whatever address it gives itself.
    assert not network.passes("two", ONE)
    bridges.forget(network.one)
    assert not network.passes("one", ONE)
    bridges.let_go(network.bridge)
    assert network.passes("one", ONE)


def test_governed_port_is_judged_once(network: Network, bridges: Bridges) -> None:
    """At its own device; the bridge has nothing to add."""
    plane = network.bench.plane
    bridges.hold(network.bridge)
    plane.attach_device(network.one)
    try:
        assert not network.passes("one", ONE)
        counted = network.bench.counted()
        assert counted[Reason.DENIED_UNKNOWN_ADDRESS] == 1
        assert Reason.DENIED_NEW_CONTAINER not in counted
        network.bench.open("seeded", HOST, (PORT,), 60.0)
        assert network.passes("one", ONE)
    finally:
        plane.detach_device(network.one)


def test_what_the_policy_allows_passes_who_is_held(network: Network, bridges: Bridges) -> None:
    bridges.hold(network.bridge)
    network.bench.open("seeded", HOST, (PORT,), 60.0)
    assert network.passes("one", ONE)


def test_mark_of_an_earlier_instance(network: Network, bridges: Bridges) -> None:
    """What it left agrees with what comes."""
    assert devices.mark_of(network.bridge) == 0
    bridges.hold(network.bridge)
    bridges.let_pass(network.one)
    mark = devices.mark_of(network.bridge)
    assert mark
    assert choose_mark([network.bridge]) == mark
    assert len(devices.known(network.one)) == 1
    assert network.passes("one", ONE)


def test_what_an_earlier_instance_left_is_replaced(network: Network, bridges: Bridges) -> None:
    bridges.hold(network.bridge)
    first = set(devices.held(network.bridge))
    bridges.let_pass(network.one)
    passing = set(devices.known(network.one))
    second = Bridges(bridges.held)
    second.let_pass(network.one)
    assert len(devices.known(network.one)) == 1
    assert passing.isdisjoint(devices.known(network.one))
    with pytest.raises(BusyDeviceError):
        second.hold(network.bridge)
    assert set(devices.held(network.bridge)) == first
    second.close()


def test_devices_that_are_gone(network: Network, bridges: Bridges) -> None:
    bridges.hold(network.bridge)
    bridges.let_pass(network.one)
    with IPRoute() as netlink:
        netlink.link("del", index=network.one.index)
        netlink.link("del", index=network.bridge.index)
    bridges.forget(network.one)
    bridges.let_go(network.bridge)
    assert not bridges.holding
    assert not bridges.known
    with pytest.raises(OSError, match="nowhere"):
        bridges.hold(Device("nowhere", 4711))
    assert not bridges.holding

"""Attaching to real devices, by tcx and by the clsact qdisc that older kernels have."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute
from scapy.layers.inet import IP, TCP

from ram_ebpf.dataplane import devices, features, syscall
from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.dataplane.devices import BusyDeviceError, Device
from ram_ebpf.dataplane.programs import Hook
from ram_ebpf.dataplane.syscall import AttachType
from ram_ebpf.scopes.device import DeviceTarget

from .exchanges import DENIED_NAMES, REGISTRIES
from .support import Bench, ip
from .wire import own_network

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

_REVISION = 56  # its offset in the attributes of a query, include/uapi/linux/bpf.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000  # include/uapi/linux/if_tun.h
_KERNEL = syscall.program_attach


def without_tcx(target: int, program: int, attach_type: AttachType, flags: int) -> None:
    """As before Linux 6.6."""
    if attach_type in (AttachType.TCX_INGRESS, AttachType.TCX_EGRESS):
        raise OSError(errno.EINVAL, "bpf(PROG_ATTACH)")
    _KERNEL(target, program, attach_type, flags)


@pytest.fixture(params=["the kernel's best", "clsact"], autouse=True)
def network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "clsact":
        monkeypatch.setattr(syscall, "program_attach", without_tcx)
    with own_network():
        yield


@pytest.fixture
def veth(network: None) -> Device:
    with IPRoute() as netlink:
        netlink.link("add", ifname="outside", kind="veth", peer={"ifname": "inside"})
    (device,) = DeviceTarget("outside").find().devices
    return device


@pytest.fixture
def bench(loaded: Bench) -> Bench:
    loaded.reset()
    return loaded


def ways(device: Device) -> set[AttachType]:
    return {attachment.way for attachment in devices.ours_attached(device)}


BOTH = {AttachType.TCX_INGRESS, AttachType.TCX_EGRESS}


@pytest.mark.parametrize("flags", [PlaceFlag(0), PlaceFlag.OWN_TRAFFIC, PlaceFlag.NO_LINK_HEADER])
def test_attach_and_detach(bench: Bench, veth: Device, flags: PlaceFlag) -> None:
    device = Device(veth.name, veth.index, flags)
    assert bench.plane.attach_device(device) == 0
    assert bench.plane.attached_devices == (device,)
    assert ways(device) == BOTH
    bench.plane.detach_device(device)
    assert ways(device) == set()
    assert not bench.plane.attached_devices


def test_leftovers_are_replaced(bench: Bench, veth: Device) -> None:
    before = devices.attach(bench.scope.programs_for(veth.flags), veth)
    assert bench.plane.attach_device(veth) == 2
    after = devices.ours_attached(veth)
    assert len(after) == 2
    assert not set(before) & set(after)
    bench.plane.detach_device(veth)
    assert devices.ours_attached(veth) == []


def test_others_stay(bench: Bench, veth: Device) -> None:
    """Filters of somebody else, whose program returns what ours may not override."""
    code = syscall.instructions((0xB7, 0, 0, 0, 0), (0x95, 0, 0, 0, 0))
    fd, _ = syscall.program_load("others", syscall.ProgramType.SCHED_CLS, code, None)
    with IPRoute() as netlink:
        netlink.tc("add", "clsact", veth.index)
        netlink.tc(
            "add-filter", "bpf", veth.index, fd=fd, name="others", parent=0xFFFFFFF2, prio=1, protocol=3,
            direct_action=True,
        )  # fmt: skip
        bench.plane.attach_device(veth)
        bench.plane.detach_device(veth)
        names = [
            options.get_attr("TCA_BPF_NAME")
            for message in netlink.get_filters(index=veth.index, parent=0xFFFFFFF2)
            if (options := message.get_attr("TCA_OPTIONS")) is not None
        ]
    assert names == ["others"]


def test_device_that_is_gone(bench: Bench, veth: Device) -> None:
    bench.plane.attach_device(veth)
    with IPRoute() as netlink:
        netlink.link("del", index=veth.index)
    assert not devices.exists(veth)
    bench.plane.detach_device(veth)


def test_no_such_device(bench: Bench, network: None) -> None:
    device = Device("nowhere", 4711)
    with pytest.raises(OSError, match="nowhere"):
        bench.plane.attach_device(device)
    assert bench.plane.attached_devices == ()


def test_device_of_another_instance(bench: Bench, veth: Device) -> None:
    held = devices.lock(veth)
    with pytest.raises(BusyDeviceError, match="outside is already governed"):
        bench.plane.attach_device(veth)
    held.close()
    bench.plane.attach_device(veth)
    bench.plane.detach_device(veth)


def test_twins_learn_for_each_other(bench: Bench) -> None:
    twin = bench.plane.open_scope(bench.scope)
    try:
        bench.open("learned", "192.0.2.1", (443,), 60)
        assert set(bench.learned(twin)) == set(bench.learned()) != set()
        twin.maps["queries"][bytes(twin.maps["queries"].shape.key_size)] = bytes(
            twin.maps["queries"].shape.value_size
        )
        assert not list(bench.map("queries"))
    finally:
        bench.plane.close_scope(twin)
    assert bench.learned()


def test_kernel_answers_fit(veth: Device) -> None:
    """It writes a revision behind the attributes of a query of tcx, whatever size it was told."""
    attributes = struct.pack("=IIIIQI", veth.index, AttachType.TCX_INGRESS, 0, 0, 0, 0)
    with contextlib.suppress(OSError):  # no tcx
        _, answer = syscall._bpf_with_answer(syscall.Command.PROG_QUERY, attributes)
        assert struct.unpack_from("=Q", answer, _REVISION)[0] > 0
        assert len(answer) > _REVISION + 8


def test_device_without_frames(bench: Bench, network: None) -> None:
    """What is written into a tunnel has an IP header first, and so has the answer."""
    tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH22x", b"tunnel", _IFF_TUN | _IFF_NO_PI))
        with IPRoute() as netlink:
            (index,) = netlink.link_lookup(ifname="tunnel")
            netlink.link("set", index=index, state="up")
        (device,) = DeviceTarget("tunnel").find().devices
        assert device.flags == PlaceFlag.NO_LINK_HEADER
        bench.plane.attach_device(device)
        try:
            packet = ip("198.51.100.1") / TCP(sport=40000, dport=443, flags="S", seq=1000)
            os.write(tunnel, bytes(packet))
            told: list[IP] = []
            deadline = time.monotonic() + 3
            while not told and time.monotonic() < deadline:
                with contextlib.suppress(BlockingIOError):
                    told += [p for p in [IP(os.read(tunnel, 2048))] if p.version == 4]
            (reset,) = told
            assert (reset.src, reset.dst, str(reset[TCP].flags), reset[TCP].ack) == (
                "198.51.100.1",
                "10.0.0.2",
                "RA",
                1001,
            )
        finally:
            bench.plane.detach_device(device)
    finally:
        os.close(tunnel)


def test_names_of_others(bench: Bench, veth: Device) -> None:
    """By tcx and at the qdisc alike; ours are not among them."""
    fd = features.load_small(syscall.ProgramType.SCHED_CLS, None)
    assert devices.others_attached(veth) == []
    devices.attach_to_clsact(Hook("f", "x", syscall.ProgramType.SCHED_CLS), fd, veth, AttachType.TCX_INGRESS)
    with IPRoute() as netlink:
        netlink.tc(
            "add-filter", "bpf", veth.index, fd=fd, name="others", parent=0xFFFFFFF2, prio=7, protocol=3,
            direct_action=True,
        )  # fmt: skip
    os.close(fd)
    bench.plane.attach_device(veth)
    assert devices.others_attached(veth) == ["others"]
    bench.plane.detach_device(veth)


def test_lock_of_a_device_is_seen(veth: Device) -> None:
    assert not devices.is_locked(veth)
    with devices.lock(veth):
        assert devices.is_locked(veth)
        assert not devices.is_locked(veth, "bridge")
        assert not devices.is_locked(Device(veth.name, veth.index + 1))
    assert not devices.is_locked(veth)

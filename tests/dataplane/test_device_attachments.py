"""Attaching to real devices, by tcx and by the clsact qdisc that older kernels have."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute

from ram_ebpf.dataplane import devices, syscall
from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.dataplane.devices import BusyDeviceError, Device
from ram_ebpf.dataplane.syscall import AttachType
from ram_ebpf.scopes.device import DeviceTarget

from .exchanges import DENIED_NAMES, REGISTRIES
from .support import Bench
from .wire import own_network

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

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
    for _ in range(100):
        for way in BOTH:
            with contextlib.suppress(OSError):  # no tcx
                assert syscall.program_query(veth.index, way) == []

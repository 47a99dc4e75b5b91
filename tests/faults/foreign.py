"""Programs of others beside ours: as of systemd for IPAddressDeny=, and at a device's qdisc."""

from __future__ import annotations

import os
from pathlib import Path

from pyroute2 import IPRoute

from ram_ebpf.dataplane import namespaces, syscall
from ram_ebpf.dataplane.devices import Device
from ram_ebpf.dataplane.syscall import AttachType, ProgramType

_PASS = syscall.instructions((0xB7, 0, 0, 0, 1), (0x95, 0, 0, 0, 0))
# TC_ACT_UNSPEC (-1) goes on to whatever else is attached.
_GO_ON = syscall.instructions((0xB7, 0, 0, 0, -1), (0x95, 0, 0, 0, 0))
_TYPES = {
    AttachType.INET_INGRESS: ProgramType.CGROUP_SKB,
    AttachType.INET_EGRESS: ProgramType.CGROUP_SKB,
    AttachType.INET4_CONNECT: ProgramType.CGROUP_SOCK_ADDR,
    AttachType.INET6_CONNECT: ProgramType.CGROUP_SOCK_ADDR,
}
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_ETH_P_ALL = 3


class Firewall:
    """One program at each hook of a control group, which lets everything pass."""

    def __init__(self, cgroup: Path) -> None:
        self._cgroup = cgroup
        self._fds: dict[AttachType, int] = {}
        directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for hook, kind in _TYPES.items():
                self._fds[hook], _ = syscall.program_load("sd_fw", kind, _PASS, hook)
                syscall.program_attach(directory, self._fds[hook], hook, syscall.F_ALLOW_MULTI)
        finally:
            os.close(directory)

    def detach(self) -> None:
        """Takes all of them away."""
        directory = os.open(self._cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for hook, fd in self._fds.items():
                syscall.program_detach(directory, fd, hook)
                os.close(fd)
        finally:
            os.close(directory)
        self._fds.clear()


class Shaper:
    """Filters at a device's clsact qdisc, as tools that observe traffic have them."""

    def __init__(self, device: Device) -> None:
        self._device = device
        fd, _ = syscall.program_load("watch", ProgramType.SCHED_CLS, _GO_ON, None)
        try:
            with namespaces.inside(device.namespace), IPRoute() as netlink:
                netlink.tc("replace", "clsact", device.index)
                for parent in _PARENTS.values():
                    netlink.tc(
                        "add-filter",
                        "bpf",
                        device.index,
                        fd=fd,
                        name="watch",
                        parent=parent,
                        prio=1,
                        protocol=_ETH_P_ALL,
                        direct_action=True,
                    )
        finally:
            os.close(fd)

    def remove(self) -> None:
        """The qdisc, and with it everybody's filters there."""
        with namespaces.inside(self._device.namespace), IPRoute() as netlink:
            netlink.tc("del", "clsact", self._device.index)

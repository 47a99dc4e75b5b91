"""Attaching programs to network devices: by tcx where the kernel has it (6.6), else to the clsact qdisc.

tcx stays when somebody removes the qdisc, and its programs are called before those of the qdisc. Either
outlives this process, as the attachments to cgroups do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ram_ebpf.dataplane import namespaces, syscall
from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.dataplane.programs import DEVICE_INCOMING, DEVICE_OUTGOING, Hook, Programs
from ram_ebpf.dataplane.syscall import AttachType

# include/uapi/linux/pkt_sched.h: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), and likewise for egress.
_CLSACT_PARENTS = {AttachType.TCX_INGRESS: 0xFFFFFFF2, AttachType.TCX_EGRESS: 0xFFFFFFF3}
BEHIND = PlaceFlag(0)
"""What is governed is behind a device with Ethernet frames, as a container is behind its veth."""

_ETH_P_ALL = 0x0003
_PRIORITY = 1  # before anybody else's filters, unless they want to be the first too
_NO_TCX = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


class BusyDeviceError(RuntimeError):
    """Another instance of ram-ebpf governs the device."""


@dataclass(frozen=True)
class Device:
    """A network device, as it is found: by its number, since a name may come to mean another one.

    `namespace`: the file of its network namespace; None for that of this process.
    """

    name: str
    index: int
    flags: PlaceFlag = BEHIND
    namespace: Path | None = None

    def __str__(self) -> str:
        return self.name if self.namespace is None else f"{self.name} in {self.namespace}"

    def directions(self) -> Iterator[tuple[Hook, AttachType]]:
        """Where each program goes. What is behind the device sends into it what comes in here.

        What comes to the governed side is read first: a reply that is learned is never refused meanwhile.
        """
        ways = [AttachType.TCX_EGRESS, AttachType.TCX_INGRESS]
        if self.flags & PlaceFlag.OWN_TRAFFIC:
            ways.reverse()
        yield DEVICE_INCOMING, ways[0]
        yield DEVICE_OUTGOING, ways[1]


def lock(device: Device) -> socket.socket:
    """Held for as long as the device is governed: no second instance gets it. Raises BusyDeviceError.

    A name in the abstract namespace of Unix sockets, which each network namespace has for itself (unix(7)).
    """
    with namespaces.inside(device.namespace):
        held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0ram-ebpf/device/{device.index}")
    except OSError as error:
        held.close()
        raise BusyDeviceError(f"{device} is already governed by another instance of ram-ebpf") from error
    return held


def exists(device: Device) -> bool:
    """Whether there is still a device of this number and name."""
    try:
        with namespaces.inside(device.namespace):
            return socket.if_indextoname(device.index) == device.name
    except OSError:
        return False


def attach(programs: Programs, device: Device) -> None:
    """Attaches both programs, beside whatever others have attached. Raises OSError."""
    attached: list[tuple[Hook, AttachType]] = []
    with namespaces.inside(device.namespace):
        try:
            for hook, way in device.directions():
                _attach(hook, programs.fds[hook.function], device, way)
                attached.append((hook, way))
        except BaseException:
            for hook, way in attached:
                _detach_one(programs.fds[hook.function], device, way)
            raise


def _attach(hook: Hook, fd: int, device: Device, way: AttachType) -> None:
    try:
        syscall.program_attach(device.index, fd, way, syscall.F_BEFORE)
    except OSError as error:
        if error.errno not in _NO_TCX:
            raise OSError(error.errno, f"{device}: {error.strerror}") from error
        _attach_to_clsact(hook, fd, device, way)


def _attach_to_clsact(hook: Hook, fd: int, device: Device, way: AttachType) -> None:
    try:
        with IPRoute() as netlink:
            try:
                netlink.tc("add", "clsact", device.index)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
            netlink.tc(
                "add-filter",
                "bpf",
                device.index,
                fd=fd,
                name=hook.object_name,
                parent=_CLSACT_PARENTS[way],
                prio=_PRIORITY,
                protocol=_ETH_P_ALL,
                direct_action=True,
            )
    except NetlinkError as error:
        raise OSError(error.code, f"{device}: tc: {os.strerror(error.code)}") from error


def detach(programs: Programs, device: Device) -> None:
    """Detaches what attach() attached; a device that is gone took its attachments along."""
    with contextlib.suppress(OSError), namespaces.inside(device.namespace):
        for hook, way in reversed(list(device.directions())):
            _detach_one(programs.fds[hook.function], device, way)


def _detach_one(fd: int, device: Device, way: AttachType) -> None:
    identifier = syscall.program_info(fd).id
    with contextlib.suppress(OSError):
        syscall.program_detach(device.index, fd, way)
        return
    for found in _filters(device, way):
        if found.identifier == identifier:
            _remove_filter(device, way, found)


@dataclass(frozen=True)
class _Filter:
    """A filter of ours on the clsact qdisc."""

    name: str
    identifier: int  # of its program
    handle: int
    priority: int


def _filters(device: Device, way: AttachType) -> list[_Filter]:
    """Ours. Those of a device without that qdisc, or that is gone, are none."""
    found = []
    ours = {hook.object_name for hook in (DEVICE_INCOMING, DEVICE_OUTGOING)}
    with contextlib.suppress(NetlinkError), IPRoute() as netlink:
        for message in netlink.get_filters(index=device.index, parent=_CLSACT_PARENTS[way]):
            options: Any = message.get_attr("TCA_OPTIONS")
            name = options.get_attr("TCA_BPF_NAME") if hasattr(options, "get_attr") else None
            if name in ours:
                identifier = options.get_attr("TCA_BPF_ID")
                found.append(_Filter(name, int(identifier), message["handle"], message["info"] >> 16))
    return found


def _remove_filter(device: Device, way: AttachType, found: _Filter) -> None:
    with contextlib.suppress(NetlinkError), IPRoute() as netlink:
        netlink.tc(
            "del-filter",
            "bpf",
            device.index,
            handle=found.handle,
            parent=_CLSACT_PARENTS[way],
            prio=found.priority,
            protocol=_ETH_P_ALL,
        )


def ours_attached(device: Device) -> list[int]:
    """Ids of programs of ram-ebpf attached to a device, whoever loaded them."""
    found = []
    ours = {hook.object_name for hook in (DEVICE_INCOMING, DEVICE_OUTGOING)}
    with namespaces.inside(device.namespace):
        for way in _CLSACT_PARENTS:
            for identifier in _queried(device, way):
                with contextlib.suppress(OSError):
                    fd = syscall.program_fd_by_id(identifier)
                    try:
                        if syscall.program_info(fd).name in ours:
                            found.append(identifier)
                    finally:
                        os.close(fd)
            found += [item.identifier for item in _filters(device, way)]
    return found


def _queried(device: Device, way: AttachType) -> list[int]:
    try:
        return syscall.program_query(device.index, way)
    except OSError:  # no tcx
        return []


def detach_leftovers(identifiers: list[int], device: Device) -> int:
    """Detaches programs that an earlier, killed instance left; returns how many."""
    count = 0
    with namespaces.inside(device.namespace):
        for identifier in identifiers:
            with contextlib.suppress(FileNotFoundError):
                fd = syscall.program_fd_by_id(identifier)
                try:
                    for way in _CLSACT_PARENTS:
                        _detach_one(fd, device, way)
                    count += 1
                finally:
                    os.close(fd)
    return count

"""Attaching programs to network devices: by tcx where the kernel has it (6.6), else to the clsact qdisc.

tcx stays when somebody removes the qdisc, and its programs are called before those of the qdisc. Either
outlives this process, as the attachments to cgroups do.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ram_ebpf.dataplane import abi, namespaces, scope_maps, syscall
from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.dataplane.programs import DEVICE_PROGRAMS, OBJECT_PREFIX, Hook, Programs
from ram_ebpf.dataplane.syscall import AttachType

# include/uapi/linux/pkt_sched.h: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), and likewise for egress.
_CLSACT_PARENTS = {AttachType.TCX_INGRESS: 0xFFFFFFF2, AttachType.TCX_EGRESS: 0xFFFFFFF3}
BEHIND = PlaceFlag(0)
"""What is governed is behind a device with Ethernet frames, as a container is behind its veth."""

_ETH_P_ALL = 0x0003
_TCA_BPF_ID, _ATTRIBUTE_HEADER = 11, 4  # include/uapi/linux/pkt_cls.h, netlink.h
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

    def ways(self) -> tuple[AttachType, AttachType]:
        """Where what comes to the governed side passes, and what leaves it.

        What is behind the device sends into it what comes in here.
        """
        ways = (AttachType.TCX_EGRESS, AttachType.TCX_INGRESS)
        return ways[::-1] if self.flags & PlaceFlag.OWN_TRAFFIC else ways


def lock(device: Device, what: str = "device") -> socket.socket:
    """Held for as long as the device is governed: no second instance gets it. Raises BusyDeviceError.

    `what`: as what it is governed, where one may be as several things.

    A name in the abstract namespace of Unix sockets, which each network namespace has for itself (unix(7)).
    """
    with namespaces.inside(device.namespace):
        held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        held.bind(f"\0{_lock_name(device, what)}")
    except OSError as error:
        held.close()
        raise BusyDeviceError(f"{device} is already governed by another instance of ram-ebpf") from error
    return held


def is_locked(device: Device, what: str = "device") -> bool:
    """Whether an instance holds lock() of a device of this network namespace. Raises OSError."""
    names = Path("/proc/thread-self/net/unix").read_text(encoding="utf-8", errors="replace").split()
    return f"@{_lock_name(device, what)}" in names


def _lock_name(device: Device, what: str) -> str:
    return f"ram-ebpf/{what}/{device.index}"


def exists(device: Device) -> bool:
    """Whether there is still a device of this number and name."""
    try:
        with namespaces.inside(device.namespace):
            return socket.if_indextoname(device.index) == device.name
    except OSError:
        return False


def are_same(one: Device, other: Device) -> bool:
    """Whether two are one device, whichever paths lead to its namespace (/run/netns/NAME, /proc/PID/ns/net).

    False where a namespace cannot be looked at any more.
    """
    if one.index != other.index:
        return False
    try:
        first, second = (namespaces.identity(item.namespace or namespaces.OWN) for item in (one, other))
    except OSError:
        return False
    return first == second


class Attachment(NamedTuple):
    """One program (by its id) at a device: by tcx, or as a filter of the clsact qdisc, which has a handle."""

    way: AttachType
    program: int
    handle: int = 0
    priority: int = 0


def attach(
    programs: Programs,
    device: Device,
    hooks: Sequence[Hook] = DEVICE_PROGRAMS.attached,
    learning: Programs | None = None,
    before_refusing: Callable[[], None] = lambda: None,
) -> list[Attachment]:
    """Attaches both programs, beside whatever others have attached. Raises OSError.

    What comes to the governed side is read first: a reply that is learned is never refused meanwhile.
    `before_refusing` is called before the second one. `learning`: the same for PlaceFlag.LEARN, where these
    take the place of others: of it the second one is there meanwhile, so that no query is known to neither
    these nor, before that call, the others.
    """
    (incoming, back), (outgoing, out) = zip(hooks, device.ways(), strict=True)
    attached: list[Attachment] = []
    with namespaces.inside(device.namespace):
        try:
            attached.append(_attach(incoming, programs.fds[incoming.label], device, back))
            if learning is not None:
                attached.append(_attach(outgoing, learning.fds[outgoing.label], device, out))
            before_refusing()
            attached.append(_attach(outgoing, programs.fds[outgoing.label], device, out))
            if learning is not None:
                _detach(device, attached.pop(1))
        except BaseException:
            for attachment in attached:
                _detach(device, attachment)
            raise
    return attached


def attach_known(programs: Programs, device: Device) -> list[Attachment]:
    """Lets what comes from a port of a bridge pass what holds others there. Raises OSError."""
    (hook,) = DEVICE_PROGRAMS.known
    with namespaces.inside(device.namespace):
        return [_attach(hook, programs.fds[hook.label], device, device.ways()[1])]


def held(device: Device) -> list[Attachment]:
    """What holds new containers at a bridge, whoever attached it."""
    return _attached_by(device, {hook.object_name for hook in DEVICE_PROGRAMS.holding})


def known(device: Device) -> list[Attachment]:
    """What lets a port of a bridge pass, whoever attached it."""
    return _attached_by(device, {hook.object_name for hook in DEVICE_PROGRAMS.known})


def mark_of(device: Device) -> int:
    """By which a bridge that holds new containers knows the packets of known ports; 0: it holds nobody."""
    for attachment in held(device):
        with contextlib.suppress(OSError), syscall.opened_program(attachment.program) as fd:
            place = scope_maps.place_of(fd)
            if place is not None:
                return place >> abi.MARK_SHIFT
    return 0


def _attach(hook: Hook, fd: int, device: Device, way: AttachType) -> Attachment:
    try:
        syscall.program_attach(device.index, fd, way, syscall.F_BEFORE)
    except OSError as error:
        if error.errno not in _NO_TCX:
            raise OSError(error.errno, f"{device}: {error.strerror}") from error
        return attach_to_clsact(hook, fd, device, way)
    return Attachment(way, syscall.program_info(fd).id)


def attach_to_clsact(hook: Hook, fd: int, device: Device, way: AttachType) -> Attachment:
    """Attaches one program to the qdisc, which is made where there is none. Raises OSError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    # One of our own choice, by which it is found again; others count from 1.
    handle = secrets.randbits(30) | 1 << 30
    attachment = Attachment(way, syscall.program_info(fd).id, handle, _PRIORITY)
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
                handle=attachment.handle,
                fd=fd,
                name=hook.object_name,
                parent=_CLSACT_PARENTS[way],
                prio=attachment.priority,
                protocol=_ETH_P_ALL,
                direct_action=True,
            )
    except NetlinkError as error:
        raise OSError(error.code, f"{device}: tc: {os.strerror(error.code)}") from error
    return attachment


def detach(device: Device, attachments: Iterable[Attachment]) -> None:
    """Detaches what attach() attached, or an earlier instance; a device that is gone took it along.

    What refuses goes first: without the others it would learn nothing more, and refuse what is allowed.
    """
    incoming, _ = device.ways()
    with contextlib.suppress(OSError), namespaces.inside(device.namespace):
        for attachment in sorted(attachments, key=lambda item: item.way is incoming):
            _detach(device, attachment)


def _detach(device: Device, attachment: Attachment) -> None:
    if attachment.handle:
        _remove_filter(device, attachment)
        return
    with contextlib.suppress(OSError):
        with syscall.opened_program(attachment.program) as fd:
            syscall.program_detach(device.index, fd, attachment.way)


def _remove_filter(device: Device, attachment: Attachment) -> None:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with contextlib.suppress(NetlinkError), IPRoute() as netlink:
        netlink.tc(
            "del-filter",
            "bpf",
            device.index,
            handle=attachment.handle,
            parent=_CLSACT_PARENTS[attachment.way],
            prio=attachment.priority,
            protocol=_ETH_P_ALL,
        )


def ours_attached(device: Device) -> list[Attachment]:
    """Programs of ram-ebpf attached to a device, whoever loaded them."""
    return _attached_by(device, {hook.object_name for hook in DEVICE_PROGRAMS.attached})


def others_attached(device: Device) -> list[str]:
    """Names of programs and kinds of filters that are not of ram-ebpf. Raises OSError."""
    with namespaces.inside(device.namespace):
        return [
            name
            for way in _CLSACT_PARENTS
            for find in (_by_tcx, _filters)
            for _, name in find(device, way)
            if not name.startswith(OBJECT_PREFIX)
        ]


def _attached_by(device: Device, names: Set[str]) -> list[Attachment]:
    with namespaces.inside(device.namespace):
        return [
            found
            for way in _CLSACT_PARENTS
            for find in (_by_tcx, _filters)
            for found, name in find(device, way)
            if name in names
        ]


def _by_tcx(device: Device, way: AttachType) -> Iterator[tuple[Attachment, str]]:
    try:
        identifiers = syscall.program_query(device.index, way)
    except OSError:  # no tcx
        return
    for identifier in identifiers:
        with contextlib.suppress(OSError), syscall.opened_program(identifier) as fd:
            yield Attachment(way, identifier), syscall.program_info(fd).name


def _filters(device: Device, way: AttachType) -> Iterator[tuple[Attachment, str]]:
    """On the clsact qdisc, each with the name of its program, or else its kind.

    A device without one, or that is gone, has none.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with contextlib.suppress(NetlinkError), IPRoute() as netlink:
        for message in netlink.get_filters(index=device.index, parent=_CLSACT_PARENTS[way]):
            options: Any = message.get_attr("TCA_OPTIONS")
            if options is None:  # the kernel tells of each priority once more without a filter
                continue
            kind = message.get_attr("TCA_KIND")
            name = options.get_attr("TCA_BPF_NAME") if kind == "bpf" else None
            program = _program_of(options) if kind == "bpf" else 0
            yield Attachment(way, program, message["handle"], message["info"] >> 16), str(name or kind)


def _program_of(options: Any) -> int:
    """The id of a filter's program, which pyroute2 does not know; 0 where the kernel says nothing."""
    for name, value in options["attrs"]:
        if name == "UNKNOWN" and value["header"]["type"] == _TCA_BPF_ID:
            (identifier,) = struct.unpack_from("=I", value.data, value.offset + _ATTRIBUTE_HEADER)
            return int(identifier)
    return 0

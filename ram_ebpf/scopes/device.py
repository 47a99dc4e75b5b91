"""Network devices by name, and what is governed at one: what is behind it, or what this host sends by it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ram_ebpf.dataplane import namespaces
from ram_ebpf.dataplane.abi import PlaceFlag
from ram_ebpf.dataplane.devices import BEHIND, Device
from ram_ebpf.scopes.cgroup import ScopeError
from ram_ebpf.scopes.target import Places, Target

# Behind these kinds of device is somebody else: a container, the ports of a bridge, a virtual machine.
_OTHERS_BEHIND = frozenset({"veth", "bridge", "tun", "netkit", "vcan", "openvswitch"})
# include/uapi/linux/if_arp.h
_ARPHRD_ETHER = 1
_ARPHRD_LOOPBACK = 772
_DUMPS = 4  # in a row, each of which was interrupted


def describe_link(link: Any) -> Device:
    """A device as netlink describes it (RTM_NEWLINK)."""
    flags = BEHIND
    if _kind(link) not in _OTHERS_BEHIND:
        flags |= PlaceFlag.OWN_TRAFFIC
    if link["ifi_type"] not in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK):
        flags |= PlaceFlag.NO_LINK_HEADER
    return Device(link.get_attr("IFLA_IFNAME"), link["index"], flags)


class DeviceTarget(Target):
    """One device of this network namespace, by its name."""

    at_devices = True
    period = 2.0  # beside what LinkWatch tells at once

    def __init__(self, name: str) -> None:
        """Raises ScopeError for the loopback interface."""
        self.label = f"device {name}"
        self._name = name
        self._found: Device | None = None
        if name == "lo":
            raise ScopeError(
                "device lo: is the loopback interface, by which this host talks to itself; "
                "name the device of a container, or the one that leads out"
            )

    def _look_up(self) -> Device | None:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        with IPRoute() as netlink:
            try:
                (link,) = netlink.get_links(ifname=self._name)
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    return None
                raise OSError(error.code, f"device {self._name}: {error}") from error
        return describe_link(link)

    def find(self) -> Places:
        """The device, if there is one of the name; another one of the same name is another device."""
        try:
            index = socket.if_nametoindex(self._name)
        except OSError:
            self._found = None
            return Places()
        if self._found is None or self._found.index != index:
            self._found = self._look_up()
        return Places(devices=frozenset({self._found} if self._found else ()))


@dataclass(frozen=True)
class Cable:
    """A veth of this network namespace: where it leads, and the bridge that it is plugged into."""

    device: Device
    number: int | None  # by which this namespace knows the other one; None: it leads to this one
    end: int  # the number of the device at its other end, in there
    bridge: str | None


def _dump(netlink: Any) -> list[Any]:
    """All devices. A device that is there throughout is among them, however many come and go meanwhile.

    The kernel says of a dump whether that was so (NLM_F_DUMP_INTR): it may have left out others then.
    """
    from pyroute2.netlink import NLM_F_DUMP_INTR

    found: dict[int, Any] = {}
    for _ in range(_DUMPS):
        dump = list(netlink.get_links())
        if not any(link["header"]["flags"] & NLM_F_DUMP_INTR for link in dump):
            return dump
        found.update((link["index"], link) for link in dump)
    return list(found.values())


@dataclass(frozen=True)
class Links:
    """The veths and bridges of this network namespace, by one look."""

    cables: list[Cable]
    bridges: list[Device]

    @classmethod
    def now(cls) -> Links:
        """Those that there are. Raises OSError."""
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with IPRoute() as netlink:
                links = _dump(netlink)
        except NetlinkError as error:
            raise OSError(error.code, f"devices of this network namespace: {error}") from error
        names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in links}
        pairs = [
            Cable(
                describe_link(link),
                link.get_attr("IFLA_LINK_NETNSID"),
                link.get_attr("IFLA_LINK"),
                names.get(link.get_attr("IFLA_MASTER")),
            )
            for link in links
            if _is_pair(link)
        ]
        return cls(pairs, [describe_link(link) for link in links if _kind(link) == "bridge"])


def cables() -> list[Cable]:
    """All veths of this network namespace, by one look. Raises OSError."""
    return Links.now().cables


def devices_into(namespace: Path) -> frozenset[Device]:
    """The devices that lead out of another network namespace, to be governed from outside where possible.

    A veth is governed at its end in this namespace, where nobody inside can reach it. What else leads out of
    there is governed inside. Raises OSError when the namespace is gone.
    """
    number = number_of(namespace)
    leading = [cable for cable in cables() if number is not None and cable.number == number]
    return devices_inside(namespace, {cable.end for cable in leading}).union(
        cable.device for cable in leading
    )


def devices_inside(namespace: Path, ends: Set[int]) -> frozenset[Device]:
    """Those that lead out of another network namespace and have no end here, where they could be governed.

    Such are a macvlan, a VLAN on a device elsewhere, a physical device, a veth into a third namespace.
    `ends`: the numbers in there of devices that do. Raises OSError when the namespace is gone.
    """
    from pyroute2 import IPRoute

    with namespaces.inside(namespace), IPRoute() as netlink:
        return frozenset(
            _inside(link, namespace)
            for link in netlink.get_links()
            if link["index"] not in ends and leads_out(link, bool(ends))
        )


def number_of(namespace: Path) -> int | None:
    """By which this namespace knows another one; None when no device leads there. Raises OSError."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with namespace.open("rb") as file, IPRoute() as netlink:
        try:
            answer = netlink.get_netnsid(fd=file.fileno())
        except NetlinkError as error:
            raise OSError(error.code, f"{namespace}: {error}") from error
    number = answer["nsid"] if answer else None
    return None if number in (None, -1, 0xFFFFFFFF) else int(number)


def _kind(link: Any) -> str | None:
    info = link.get_attr("IFLA_LINKINFO")
    kind: str | None = info.get_attr("IFLA_INFO_KIND") if info is not None else None
    return kind


def _is_pair(link: Any) -> bool:
    return _kind(link) in ("veth", "netkit")


def leads_out(link: Any, others_do: bool) -> bool:
    """Whether a device leads out of the namespace that it is in.

    Not what is made of other devices in there, and not the near end of a veth into a namespace in there.
    `others_do`: some veth of the namespace leads here, so that its others are taken for such near ends.
    """
    if link["ifi_type"] == _ARPHRD_LOOPBACK or _kind(link) in ("bridge", "bond", "team", "dummy"):
        return False
    if _kind(link) == "vlan":  # moved in there, it is on a device of another namespace
        return link.get_attr("IFLA_LINK_NETNSID") is not None
    return not _is_pair(link) or (not others_do and link.get_attr("IFLA_MASTER") is None)


def _inside(link: Any, namespace: Path) -> Device:
    device = describe_link(link)
    return Device(device.name, device.index, device.flags | PlaceFlag.OWN_TRAFFIC, namespace)

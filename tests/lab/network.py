"""Cables, bridge, addresses and routes. The machine's own namespace gets none of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from pyroute2 import IPRoute

from . import topology
from .namespaces import Namespace

INTERFACE = "eth0"
_BRIDGE = "bridge"
_LOOPBACK_INDEX = 1
# Duplicate address detection would keep an IPv6 address unusable for its first second.
_IFA_F_NODAD = 0x02


def connect(switch: Namespace, members: Mapping[topology.Role, Namespace]) -> None:
    """Make a bridge in one namespace and plug each member into it, with its addresses and routes."""
    with IPRoute(netns=switch.name) as netlink:
        # Snooping would have the bridge learn multicast groups before it passes on neighbour discovery.
        netlink.link("add", ifname=_BRIDGE, kind="bridge", br_mcast_snooping=0)
        bridge = _index(netlink, _BRIDGE)
        netlink.link("set", index=bridge, state="up")
        for role, namespace in members.items():
            peer = {"ifname": INTERFACE, "net_ns_fd": namespace.name}
            netlink.link("add", ifname=role.name, kind="veth", peer=peer)
            netlink.link("set", index=_index(netlink, role.name), master=bridge, state="up")
    for role, namespace in members.items():
        with IPRoute(netns=namespace.name) as netlink:
            index = _index(netlink, INTERFACE)
            netlink.link("set", index=_LOOPBACK_INDEX, state="up")
            netlink.link("set", index=index, state="up")
            _add(netlink, index, role.addresses)
            if role.routes_world:
                for gateway in (topology.GATEWAY, topology.GATEWAY_V6):
                    netlink.route("add", dst="default", gateway=gateway, oif=index)


def add_addresses(namespace: Namespace, addresses: Iterable[str]) -> None:
    """Give a namespace further addresses, if it has not. One outside the networks is a host address."""
    with IPRoute(netns=namespace.name) as netlink:
        _add(netlink, _index(netlink, INTERFACE), addresses)


def _add(netlink: Any, index: int, addresses: Iterable[str]) -> None:
    for text in addresses:
        address = ipaddress.ip_address(text)
        near = address in ipaddress.ip_network(
            f"{topology.RESOLVER}/{topology.PREFIX_V4}"
            if address.version == 4
            else f"{topology.RESOLVER_V6}/{topology.PREFIX_V6}",
            strict=False,
        )
        lab_prefix = topology.PREFIX_V4 if address.version == 4 else topology.PREFIX_V6
        prefix = lab_prefix if near else address.max_prefixlen
        flags = {"flags": _IFA_F_NODAD} if address.version == 6 else {}
        netlink.addr("replace", index=index, address=text, prefixlen=prefix, **flags)


def _index(netlink: Any, name: str) -> int:
    return int(netlink.link_lookup(ifname=name)[0])

"""The addresses of this host."""

from __future__ import annotations

import ipaddress
import socket
import struct
import weakref

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dns import netlink

# include/uapi/linux/rtnetlink.h, if_addr.h
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_MESSAGE = struct.Struct("=4BI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_SIZES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
_SEQUENCE = 1


def host_addresses() -> set[IPAddress]:
    """The addresses of this network namespace's devices. Raises OSError."""
    found: set[IPAddress] = set()
    wanted = netlink.request(_RTM_GETADDR, _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0), _SEQUENCE)
    with netlink.connected(socket.NETLINK_ROUTE) as item:
        for piece in netlink.pieces(item, wanted):
            addresses, done = parse_addresses(piece)
            found |= addresses
            if done:
                break
    return found


class HostAddresses:
    """The same for somebody who asks again and again: the kernel tells when one comes or goes (rtnetlink(7)).

    Of the network namespace of the thread that asks first.
    """

    def __init__(self) -> None:
        self._watch: netlink.Watch | None = None
        self._known: set[IPAddress] | None = None

    def now(self) -> set[IPAddress]:
        """As host_addresses() says. Raises OSError; the next call looks again then."""
        if self._watch is None:
            self._watch = netlink.Watch(_RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR)
            weakref.finalize(self, self._watch.close)
        if self._watch.has_news():
            self._known = None
        if self._known is None:
            self._known = host_addresses()
        return self._known


def parse_addresses(data: bytes) -> tuple[set[IPAddress], bool]:
    """One piece of an answer: its addresses, and whether it was the last. Raises OSError."""
    found: set[IPAddress] = set()
    messages, done = netlink.parse(data, _SEQUENCE, "rtnetlink")
    for kind, body in messages:
        if kind != _RTM_NEWADDR:
            continue
        if len(body) < _MESSAGE.size:
            raise netlink.malformed("address")
        size = _SIZES.get(body[0])
        if size is None:  # of another family
            continue
        known = netlink.attributes(body, _MESSAGE.size)
        # On a link to a single peer IFA_ADDRESS is the peer's (include/uapi/linux/if_addr.h).
        raw = known.get(_IFA_LOCAL) or known.get(_IFA_ADDRESS, b"")
        if len(raw) != size:
            raise netlink.malformed("address")
        found.add(ipaddress.ip_address(raw))
    return found, done

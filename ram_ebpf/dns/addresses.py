"""The addresses of this host."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dns.netlink import (
    HEADER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attributes,
    malformed,
    messages,
)

# include/uapi/linux/rtnetlink.h, if_addr.h
_RTM_NEWADDR = 20
_RTM_GETADDR = 22
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_MESSAGE = struct.Struct("=4BI")  # struct ifaddrmsg: family, prefix length, flags, scope, index
_ERROR = struct.Struct("=i")
_SIZES: dict[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}
_BUFFER = 65536  # a dump comes in pieces of 32 KiB at most
_PATIENCE = 2.0  # seconds that the kernel may take for one piece


def host_addresses() -> set[IPAddress]:
    """The addresses of this network namespace's devices. Raises OSError."""
    found: set[IPAddress] = set()
    body = _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
    request = HEADER.pack(HEADER.size + len(body), _RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + body
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as item:
        item.settimeout(_PATIENCE)
        item.connect((0, 0))  # to the kernel: nobody else can put messages into our buffer then
        item.send(request)
        done = False
        while not done:
            addresses, done = parse_addresses(item.recv(_BUFFER))
            found |= addresses
    return found


def parse_addresses(data: bytes) -> tuple[set[IPAddress], bool]:
    """One piece of an answer: its addresses, and whether it was the last. Raises OSError."""
    found: set[IPAddress] = set()
    for kind, _, body in messages(data):
        if kind in (NLMSG_ERROR, NLMSG_DONE):
            error = -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else 0
            if error:
                raise OSError(error, f"rtnetlink: {os.strerror(error)}")
            return found, True
        if kind == _RTM_NEWADDR:
            if len(body) < _MESSAGE.size:
                raise malformed("address")
            size = _SIZES.get(body[0])
            if size is None:  # of another family
                continue
            known = attributes(body, _MESSAGE.size)
            # On a link to a single peer IFA_ADDRESS is the peer's (include/uapi/linux/if_addr.h).
            raw = known.get(_IFA_LOCAL) or known.get(_IFA_ADDRESS, b"")
            if len(raw) != size:
                raise malformed("address")
            found.add(ipaddress.ip_address(raw))
    return found, False

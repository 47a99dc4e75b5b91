"""Ending connections of others: by SOCK_DESTROY (sock_diag(7)), if the kernel has CONFIG_INET_DIAG_DESTROY,
or else by a reset in the name of the other end."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ram_ebpf.dataplane import namespaces
from ram_ebpf.dataplane.abi import IPAddress

# include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DESTROY = 21
_NLM_F_REQUEST_ACK = 5
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI2I")  # struct inet_diag_req_v2
_PATIENCE = 2.0

_TCP = struct.Struct("!HHIIBBHHH")  # RFC 9293 3.1
_IPV4 = struct.Struct("!BBHHHBBH4s4s")  # RFC 791 3.1
_IPV6 = struct.Struct("!IHBB16s16s")  # RFC 8200 3
_RST = 4
_HOPS = 64


class Connection(NamedTuple):
    """One TCP connection, as its socket sees it."""

    local: IPAddress
    local_port: int
    remote: IPAddress
    remote_port: int


def connections(namespace: Path | None = None) -> Iterator[tuple[int, Connection]]:
    """TCP connections that are being opened or are open, by the cookies of their sockets. Raises OSError.

    `namespace`: where the sockets are; None: here.
    """
    from pyroute2 import DiagSocket
    from pyroute2.netlink.diag import SS_ESTABLISHED, SS_SYN_SENT
    from pyroute2.netlink.exceptions import NetlinkError

    states = 1 << SS_SYN_SENT | 1 << SS_ESTABLISHED
    with namespaces.inside(namespace):
        diagnostics = DiagSocket()
    try:
        with diagnostics:
            diagnostics.bind()
            for family in (socket.AF_INET, socket.AF_INET6):
                for found in diagnostics.get_sock_stats(family=family, states=states):
                    yield (
                        found["idiag_cookie"],
                        Connection(
                            ipaddress.ip_address(found["idiag_src"]),
                            found["idiag_sport"],
                            ipaddress.ip_address(found["idiag_dst"]),
                            found["idiag_dport"],
                        ),
                    )
    except NetlinkError as error:
        raise OSError(error.code, f"sock_diag: {error}") from error


def destroy(connection: Connection, cookie: int, namespace: Path | None = None) -> None:
    """Ends a connection: its owner gets ECONNABORTED.

    `cookie`: that of its socket (SO_COOKIE), so that no other one is hit. `namespace`: where the socket is;
    None: here. Raises OSError: ENOENT when it is gone, EOPNOTSUPP where the kernel cannot.
    """
    family = socket.AF_INET if connection.remote.version == 4 else socket.AF_INET6
    body = _REQUEST.pack(
        family,
        socket.IPPROTO_TCP,
        0,
        0xFFFFFFFF,
        connection.local_port.to_bytes(2, "big"),
        connection.remote_port.to_bytes(2, "big"),
        connection.local.packed,
        connection.remote.packed,
        0,
        cookie & 0xFFFFFFFF,
        cookie >> 32,
    )
    message = _HEADER.pack(_HEADER.size + len(body), _SOCK_DESTROY, _NLM_F_REQUEST_ACK, 1, 0) + body
    with namespaces.inside(namespace):
        item = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    with item:
        item.settimeout(_PATIENCE)
        item.connect((0, 0))
        item.send(message)
        answer = item.recv(4096)
    number = -struct.unpack_from("=i", answer, _HEADER.size)[0] if len(answer) >= _HEADER.size + 4 else 0
    if number:
        raise OSError(number, f"sock_diag: {os.strerror(number)}")


def reset(connection: Connection, sequence: int, namespace: Path | None = None) -> None:
    """Ends a connection as its other end could: its owner gets ECONNRESET.

    `sequence`: of the next byte that it expects, exactly (RFC 5961 3.2); any other ends nothing. `namespace`:
    where the socket is; None: here. Needs CAP_NET_RAW. Raises OSError.
    """
    source, target = connection.remote.packed, connection.local.packed
    ports = connection.remote_port, connection.local_port
    header = _TCP.pack(*ports, sequence, 0, _TCP.size // 4 << 4, _RST, 0, 0, 0)
    pseudo = source + target + struct.pack("!II", _TCP.size, socket.IPPROTO_TCP)
    segment = _TCP.pack(*ports, sequence, 0, _TCP.size // 4 << 4, _RST, 0, _checksum(pseudo + header), 0)
    with namespaces.inside(namespace):
        if connection.local.version == 4:
            item = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
            # The kernel fills in its length, its identification and its checksum (raw(7)).
            packet = _IPV4.pack(0x45, 0, 0, 0, 0, _HOPS, socket.IPPROTO_TCP, 0, source, target)
        else:
            item = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
            packet = _IPV6.pack(6 << 28, len(segment), socket.IPPROTO_TCP, _HOPS, source, target)
    with item:
        item.settimeout(_PATIENCE)
        item.sendto(packet + segment, (str(connection.local), 0))


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

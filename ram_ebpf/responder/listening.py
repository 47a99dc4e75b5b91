"""The sockets at which the responder listens, as bpf/lib/responder.h knows them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import secrets
import socket
from dataclasses import dataclass

# An address of loopback (RFC 1122 3.2.1.3) that nothing else uses: "RAM" in ASCII. IPv6 has one alone. The
# port is one that is free, so that several instances in one network namespace do not clash.
IPV4 = ipaddress.IPv4Address("127.82.65.77")
IPV6 = ipaddress.IPv6Address("::1")

_ATTEMPTS = 16
_BACKLOG = 1024
_REACHED = 1.0  # seconds for a connection over loopback
_FIRST_PRIORITY = 16  # below are those that anybody may set (socket(7))
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@dataclass(frozen=True)
class Listening:
    """Open sockets, one for each family that there is, on one port, with one secret SO_PRIORITY."""

    sockets: tuple[socket.socket, ...]
    port: int
    priority: int

    @property
    def addresses(self) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
        """Of the sockets."""
        return (IPV4, IPV6)[: len(self.sockets)]

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The same with the port, as ADDRESS:PORT."""
        return tuple(
            f"[{address}]:{self.port}" if address.version == 6 else f"{address}:{self.port}"
            for address in self.addresses
        )

    def close(self) -> None:
        """Of this process; others may hold them."""
        for item in self.sockets:
            item.close()


def draw_priority() -> int:
    """A secret that fits SO_PRIORITY."""
    return _FIRST_PRIORITY + secrets.randbelow(2**31 - _FIRST_PRIORITY)


def listen() -> Listening:
    """In the network namespace of this thread. Raises OSError; SO_PRIORITY takes CAP_NET_ADMIN."""
    priority = draw_priority()
    for _ in range(_ATTEMPTS):
        with contextlib.ExitStack() as stack:
            four = stack.enter_context(_open(socket.AF_INET, priority))
            four.bind((str(IPV4), 0))
            port = int(four.getsockname()[1])
            sockets = [four]
            try:
                six = stack.enter_context(_open(socket.AF_INET6, priority))
                six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                six.bind((str(IPV6), port))
                sockets.append(six)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                if error.errno not in _NO_IPV6:
                    raise
            for item in sockets:
                item.listen(_BACKLOG)
            stack.pop_all()
            return Listening(tuple(sockets), port, priority)
    raise OSError(errno.EADDRINUSE, f"no port is free at {IPV4} and {IPV6} both")


def unreachable(there: Listening) -> str | None:
    """Why a client in the network namespace of this thread would wait in vain, or None.

    A firewall may drop what goes over loopback. The sockets may be closed here, if others hold them.
    """
    for address in there.addresses:
        try:
            socket.create_connection((str(address), there.port), _REACHED).close()
        except PermissionError:  # this process is governed as well, and strictly: that says nothing of others
            continue
        except OSError as error:
            return f"{address} port {there.port} cannot be reached on this host, as by a firewall: {error}"
    return None


def listen_too(port: int, priority: int) -> Listening:
    """The same in another network namespace, at the same port. Raises OSError, as where the port is taken."""
    with contextlib.ExitStack() as stack:
        four = stack.enter_context(_open(socket.AF_INET, priority))
        four.bind((str(IPV4), port))
        sockets = [four]
        with contextlib.suppress(OSError):
            six = stack.enter_context(_open(socket.AF_INET6, priority))
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind((str(IPV6), port))
            sockets.append(six)
        for item in sockets:
            item.listen(_BACKLOG)
        stack.pop_all()
    return Listening(tuple(sockets), port, priority)


def _open(family: int, priority: int) -> socket.socket:
    item = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        item.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
    except BaseException:
        item.close()
        raise
    return item

"""Devices and sockets, tried in a network namespace that is thrown away."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ram_ebpf.dataplane import devices, features, namespaces, sockets, syscall
from ram_ebpf.dataplane.devices import Device
from ram_ebpf.dataplane.programs import Hook
from ram_ebpf.dataplane.syscall import AttachType, ProgramType
from ram_ebpf.dns.local import udp_sockets
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well

_LOOPBACK = Device("lo", 1)  # LOOPBACK_IFINDEX of include/net/net_namespace.h
_WAY = AttachType.TCX_INGRESS
_PATIENCE = 2.0  # seconds
_NO_DEVICES = "take a kernel with CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_ACT and CONFIG_NET_CLS_BPF"


def examine(case: Case) -> Iterator[Finding]:
    """All of it. For root."""
    try:
        with namespaces.throwaway():
            _set_up()
            found = [_devices(), _socket_list(), _socket_end()]
    except (OSError, NetlinkError) as error:
        yield failure(
            Check.DEVICES,
            f"nothing could be tried in a network namespace of its own: {error}",
            "take a kernel with CONFIG_NET_NS, and run it with CAP_SYS_ADMIN and CAP_NET_ADMIN",
        )
        return
    yield from found


def _set_up() -> None:
    with IPRoute() as netlink:
        netlink.link("set", index=_LOOPBACK.index, state="up")


def _devices() -> Finding:
    try:
        fd = features.load_small(ProgramType.SCHED_CLS, None)
    except OSError as error:
        return failure(Check.DEVICES, f"devices cannot be governed: {error.strerror}", _NO_DEVICES)
    try:
        try:
            syscall.program_attach(_LOOPBACK.index, fd, _WAY, 0)
            return well(Check.DEVICES, "programs attach to devices, by tcx")
        except OSError:  # before Linux 6.6
            hook = Hook("probe", "probe", ProgramType.SCHED_CLS)
            devices.attach_to_clsact(hook, fd, _LOOPBACK, _WAY)
            return well(Check.DEVICES, "programs attach to devices, by the clsact qdisc")
    except OSError as error:
        return failure(
            Check.DEVICES,
            f"devices cannot be governed, neither by tcx nor by clsact: {error.strerror}",
            _NO_DEVICES,
        )
    finally:
        os.close(fd)


def _socket_list() -> Finding:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as item:
            item.bind(("127.0.0.1", 0))
            port = item.getsockname()[1]
            found = [each.port for each in udp_sockets(port)]
        if found == [port]:
            return well(Check.SOCKET_LIST, "the sockets of resolvers on this host can be found")
        problem = "one that is there is not listed"
    except OSError as error:
        problem = error.strerror or str(error)
    return warning(
        Check.SOCKET_LIST,
        f"sockets cannot be listed ({problem}): what resolvers on this host reply is asked again, one by one",
        "modprobe udp_diag, take a kernel with CONFIG_INET_UDP_DIAG, or name other resolvers in the policy",
    )


def _socket_end() -> Finding:
    try:
        _end_a_connection()
    except OSError as error:
        problem = "the kernel cannot" if error.errno == errno.EOPNOTSUPP else error.strerror or str(error)
        return warning(
            Check.SOCKET_END,
            f"connections of others cannot be ended ({problem}): what is refused behind connect() is reset "
            "by a segment in the other end's name",
            "take a kernel with CONFIG_INET_DIAG_DESTROY; modprobe tcp_diag where it is a module",
        )
    return well(Check.SOCKET_END, "connections that are refused later can be ended at once")


def _end_a_connection() -> None:
    """Opens one of its own and has the kernel abort it. Raises OSError."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), _PATIENCE) as client:
            own = client.getsockname()[1]
            for cookie, connection in sockets.connections():
                if connection.local_port == own:
                    sockets.destroy(connection, cookie)
                    break
            else:
                raise OSError(errno.ENOENT, "a connection that is there is not listed")
            try:
                client.recv(1)
            except ConnectionAbortedError:
                return
            raise OSError(errno.EIO, "a connection that was ended goes on")

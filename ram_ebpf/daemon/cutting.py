"""Ends connections that were refused for what they began with.

At a device the kernel has answered with a reset. A cgroup's programs can only drop what is sent, and TCP
would send it again and again: there the socket is ended (SOCK_DESTROY), and its owner knows at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from ram_ebpf.dataplane import sockets
from ram_ebpf.dataplane.abi import Reason, Verdict
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.sockets import Connection
from ram_ebpf.dns.streams import flow_of

_REASONS = frozenset({Reason.NAME_MISMATCH, Reason.DENIED_NOT_NAMED})
_TCP = 6


def connection_of(event: Event) -> Connection | None:
    """The connection that an event refuses for what it began with; None where there is none to end."""
    if event.reason not in _REASONS or event.verdict is not Verdict.DENY:
        return None
    if event.protocol != _TCP or not event.socket_cookie:
        return None
    if event.beginning is not None:
        return Connection(event.beginning.local, event.beginning.local_port, event.address, event.port)
    flow = flow_of(event.packet)
    if flow is None:
        return None
    return Connection(flow.source, flow.source_port, flow.destination, flow.destination_port)


class Cutter:
    """Ends sockets. `cgroup`: the directory of a cgroup by its id, if it is known."""

    def __init__(self, cgroup: Callable[[int], Path | None]) -> None:
        self._cgroup = cgroup

    def take(self, event: Event) -> None:
        """Ends the connection of an event, if it is one to be ended and still there."""
        connection = connection_of(event)
        if connection is None:
            return
        for namespace in (*self._namespaces(event), None):
            with contextlib.suppress(OSError):  # not there, gone, or a kernel that cannot
                sockets.destroy(connection, event.socket_cookie, namespace)
                return

    def _namespaces(self, event: Event) -> list[Path]:
        """Of the network in which the socket's cgroup has its processes. They may end at any time."""
        directory = self._cgroup(event.cgroup_id) if event.cgroup_id else None
        if directory is None:
            return []
        with contextlib.suppress(OSError):
            processes = (directory / "cgroup.procs").read_text(encoding="ascii").split()
            return [Path(f"/proc/{process}/ns/net") for process in processes[:1]]
        return []

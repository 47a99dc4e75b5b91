"""Ends connections whose packets are refused in a control group, so that their owners need not wait.

Where connect() itself was not refused, as of a socket that is older than the scope or of a connection that
begins with another name, the kernel drops the packets, and TCP would try again for minutes. Each refusal of a
packet is told with the cookie of its socket. At a device the kernel has answered with a reset.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from ram_ebpf.dataplane import abi, sockets
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.sockets import Connection
from ram_ebpf.dns.streams import flow_of
from ram_ebpf.scopes.neighbours import namespaces_of
from ram_ebpf.tally import Tally

_log = logging.getLogger(__name__)
_MOST_WAITING = 256
_MOST_KNOWN = 4096
# An address may be known a moment later.
_UNTIL_LEARNED = frozenset({Reason.DENIED_UNKNOWN_ADDRESS, Reason.DENIED_EXPIRED, Reason.DENIED_PORT})
REFUSED, REGISTRY_FOUND = "refused", "registry-found"
CAUSES = (REFUSED, REGISTRY_FOUND)
"""Why an open connection is cut by user space."""


def is_to_end(event: Event) -> bool:
    """Whether it refuses a connection for good, and not just a segment that is to be sent again."""
    return (
        event.hook is abi.Hook.INET_EGRESS
        and event.verdict is abi.Verdict.DENY
        and event.reason is not Reason.DENIED_SEGMENT
        and event.protocol == socket.IPPROTO_TCP
        and event.socket_cookie != 0
    )


def connection_of(event: Event) -> Connection | None:
    """The connection that an event is about, as far as the event itself says so."""
    if event.beginning is not None:
        return Connection(event.beginning.local, event.beginning.local_port, event.address, event.port)
    flow = flow_of(event.packet)
    if flow is None:
        return None
    return Connection(flow.source, flow.source_port, flow.destination, flow.destination_port)


class Ending:
    """A thread that ends them; it steps into their network namespaces."""

    def __init__(
        self,
        cgroup: Callable[[int], Path | None],
        settled: Callable[[], int] = lambda: 0,
        cut: Tally | None = None,
    ) -> None:
        """`cgroup`: the directory of a control group by its id, if it is known. `settled`: the time (ns)
        before which programs may not have known yet what those in their place had learned. `cut`: counts, by
        cause."""
        self._cgroup, self._settled = cgroup, settled
        self._cut = cut or Tally(*CAUSES)
        self._known: OrderedDict[int, None] = OrderedDict()
        self._queue: queue.Queue[tuple[int, Path | None, Connection | None]] = queue.Queue(_MOST_WAITING)
        threading.Thread(target=self._work, name="ending", daemon=True).start()

    def take(self, event: Event) -> None:
        """Ends the connection of an event, if it is one to be ended and still there."""
        if not is_to_end(event) or event.socket_cookie in self._known:
            return
        if event.reason in _UNTIL_LEARNED and event.time_ns < self._settled():
            return  # TCP tries again, and is told of again if it is refused then
        directory = self._cgroup(event.cgroup_id) if event.cgroup_id else None
        with contextlib.suppress(queue.Full):  # TCP tries again, and with it comes the next event
            self._queue.put_nowait((event.socket_cookie, directory, connection_of(event)))
            self._known[event.socket_cookie] = None
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)

    def _work(self) -> None:
        while True:
            cookie, cgroup, connection = self._queue.get()
            try:
                places = namespaces_of([cgroup]).values() if cgroup is not None else ()
                if _end(cookie, [*places, None], connection):
                    self._cut.add(REFUSED)
            except Exception:
                _log.exception("a connection in %s could not be ended", cgroup)


def _end(cookie: int, places: list[Path | None], connection: Connection | None) -> bool:
    """Whether it was ended. Where the socket is not known, it is looked for. `places`: network namespaces,
    None: this one."""
    for namespace in places:
        try:
            found = connection or next(
                (item for its, item in sockets.connections(namespace) if its == cookie), None
            )
            if found is not None:
                sockets.destroy(found, cookie, namespace)
                return True
        except OSError as error:  # not there, gone, or a kernel that cannot: its packets are dropped
            _log.debug("a connection was not ended: %s", error)
    return False

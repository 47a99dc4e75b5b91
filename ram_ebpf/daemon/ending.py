"""Ends connections whose packets are refused in a control group, so that their owners need not wait.

Where connect() itself was not refused, as of a socket that is older than the scope or of a connection that
begins with another name, the kernel drops the packets, and TCP would try again for minutes. Each refusal of a
packet is told with the cookie of its socket. At a device the kernel has answered with a reset. Where the
kernel cannot end a socket, it is sent a reset from here.
"""

from __future__ import annotations

import errno
import logging
import queue
import socket
import threading
import time
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
_RETRY = 0.5  # seconds after which one that was not found is looked for again: TCP sends again after one
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
        self._known: OrderedDict[int, float] = OrderedDict()  # by cookie: when to try again
        self._queue: queue.Queue[tuple[Event, Path | None]] = queue.Queue(_MOST_WAITING)
        threading.Thread(target=self._work, name="ending", daemon=True).start()

    def take(self, event: Event) -> None:
        """Ends the connection of an event, if it is one to be ended and still there."""
        if not is_to_end(event) or time.monotonic() < self._known.get(event.socket_cookie, 0.0):
            return
        if event.reason in _UNTIL_LEARNED and event.time_ns < self._settled():
            return  # TCP tries again, and is told of again if it is refused then
        directory = self._cgroup(event.cgroup_id) if event.cgroup_id else None
        self._known[event.socket_cookie] = float("inf")  # before the thread may forget it
        try:
            self._queue.put_nowait((event, directory))
        except queue.Full:  # TCP tries again, and with it comes the next event
            self._known.pop(event.socket_cookie, None)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def _work(self) -> None:
        while True:
            event, cgroup = self._queue.get()
            try:
                places = namespaces_of([cgroup]).values() if cgroup is not None else ()
                if _end(event, [*places, None]):
                    self._cut.add(REFUSED)
                else:  # it may be there the next time
                    self._known[event.socket_cookie] = time.monotonic() + _RETRY
            except _NotResetError:
                self._known.pop(event.socket_cookie, None)  # the next packet says what it expects then
            except Exception:
                _log.exception("a connection in %s could not be ended", cgroup)


class _NotResetError(Exception):
    """It has received more in the meantime, so the reset was not what it expected."""


def _end(event: Event, places: list[Path | None]) -> bool:
    """Whether the connection was ended. `places`: network namespaces in which its socket may be, None: this
    one. Raises _NotResetError."""
    cookie, connection = event.socket_cookie, connection_of(event)
    for namespace in places:
        try:
            found = connection or _find(cookie, namespace)
            if found is not None:
                sockets.destroy(found, cookie, namespace)
                return True
        except OSError as error:
            # Not there, or gone. If the kernel cannot, its packets are dropped all the same.
            _log.debug("a connection was not ended: %s", error)
            if error.errno == errno.EOPNOTSUPP and _reset(event, namespace):
                return True
    return False


def _find(cookie: int, namespace: Path | None) -> Connection | None:
    """A connection by its socket's cookie. Where it is not known, it is looked for. Raises OSError."""
    return next((item for its, item in sockets.connections(namespace) if its == cookie), None)


def _reset(event: Event, namespace: Path | None) -> bool:
    """The same with a segment, in the other end's name."""
    if not event.acknowledged:
        return False
    try:
        found = _find(event.socket_cookie, namespace)
        if found is None:
            return False
        sockets.reset(found, event.acknowledged, namespace)
        if _find(event.socket_cookie, namespace) is not None:
            raise _NotResetError
    except OSError as error:
        _log.debug("a connection was not reset: %s", error)
        return False
    return True

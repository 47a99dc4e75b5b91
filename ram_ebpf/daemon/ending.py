"""Ends connections whose packets are refused in a control group, so that their owners need not wait.

Where connect() itself was not refused, as of a socket that is older than the scope, the kernel drops the
packets, and TCP would try again for minutes. Each refusal of a packet is told with the cookie of its socket.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
from collections import OrderedDict
from pathlib import Path

from ram_ebpf.dataplane import abi, namespaces, sockets
from ram_ebpf.dataplane.events import Event

_log = logging.getLogger(__name__)
_MOST_WAITING = 256
_MOST_KNOWN = 4096


class Ending:
    """A thread that ends them; it steps into their network namespaces."""

    def __init__(self, mount: Path) -> None:
        """`mount`: of cgroup2."""
        self._mount = mount
        self._known: OrderedDict[int, None] = OrderedDict()
        self._queue: queue.Queue[tuple[int, str]] = queue.Queue(_MOST_WAITING)
        threading.Thread(target=self._work, name="ending", daemon=True).start()

    def take(self, event: Event, cgroup: str | None) -> None:
        """A refusal, and the path of its control group in the hierarchy."""
        if (
            event.hook is not abi.Hook.INET_EGRESS
            or event.verdict is not abi.Verdict.DENY
            or event.protocol != socket.IPPROTO_TCP
            or not event.socket_cookie
            or cgroup is None
            or event.socket_cookie in self._known
        ):
            return
        with contextlib.suppress(queue.Full):  # TCP tries again, and with it comes the next event
            self._queue.put_nowait((event.socket_cookie, cgroup))
            self._known[event.socket_cookie] = None
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)

    def _work(self) -> None:
        while True:
            cookie, cgroup = self._queue.get()
            try:
                self._end(cookie, self._mount / cgroup.lstrip("/"))
            except OSError as error:  # gone, or a kernel that cannot: its packets are dropped
                _log.debug("a connection in %s was not ended: %s", cgroup, error)
            except Exception:
                _log.exception("a connection in %s could not be ended", cgroup)

    @staticmethod
    def _end(cookie: int, cgroup: Path) -> None:
        for namespace in _namespaces_of(cgroup):
            for found, connection in sockets.connections(namespace):
                if found == cookie:
                    sockets.destroy(connection, cookie, namespace)
                    return


def _namespaces_of(cgroup: Path) -> list[Path]:
    """One file for each network namespace in which processes of a control group are."""
    found: dict[tuple[int, int], Path] = {}
    for pid in (cgroup / "cgroup.procs").read_text(encoding="ascii").split():
        path = Path(f"/proc/{pid}/ns/net")
        with contextlib.suppress(OSError):  # it has ended
            found.setdefault(namespaces.identity(path), path)
    return list(found.values())

"""Names of which nobody knows whether a registry answers there: each is asked once, and the answer kept.

The kernel tells of a connection to an endpoint that was not asked yet. Where a registry answers, the name is
refused from then on like those of the catalogue, and the connections that were let through meanwhile are cut.
In audit mode nothing is cut.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import queue
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ram_ebpf.daemon.ending import CAUSES, REGISTRY_FOUND
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.dataplane import abi, clock, sockets
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.scope_maps import ESTABLISHED
from ram_ebpf.dataplane.sockets import Connection
from ram_ebpf.dataplane.tables import refused_list
from ram_ebpf.dataplane.view import View
from ram_ebpf.dns.response import Answer
from ram_ebpf.dns.streams import FlowKey, flow_of
from ram_ebpf.oci.ping import ask
from ram_ebpf.tally import Tally

_log = logging.getLogger(__name__)

_WORKERS = 4
_MOST_WAITING = 1024
_MOST_KNOWN = 65536  # endpoints whose answer is kept in mind
_MOST_CONNECTIONS = 64  # of one endpoint, that are cut when it turns out to be a registry
_KEEP = 86400.0  # seconds
_KEEP_SILENCE = 60.0  # when nobody answered
_SO_COOKIE = 57  # include/uapi/asm-generic/socket.h; Python knows it from 3.13 on

_TCP = 6

Say = Callable[..., None]
Subject = tuple[str, int]
"""A name, or an address where no name is known, and a port."""


@dataclass
class _Connection:
    """One that was let through before anything was known."""

    scope: int
    cookie: int
    packet: bytes = b""
    pid: int | None = None


@dataclass
class _Subject:
    """What is known of one name and port. `registry`: None while nobody has answered."""

    addresses: set[abi.IPAddress] = field(default_factory=set)
    connections: dict[int | FlowKey, _Connection] = field(default_factory=dict)
    asked: bool = False
    registry: bool | None = None
    until: float = 0.0


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Asker:
    """Asks, and writes what it learns into the kernel. Events come from one thread, answers from its own."""

    def __init__(
        self,
        plane: Plane,
        history: NameHistory,
        ports: Iterable[int],
        say: Say,
        cut: Tally | None = None,
    ) -> None:
        """`cut`: counts the connections that are cut, by cause."""
        self._cuts = cut or Tally(*CAUSES)
        self._plane = plane
        self._history = history
        self._ports = tuple(ports)
        self._say = say
        self._subjects: OrderedDict[Subject, _Subject] = OrderedDict()
        # Whose answer the kernel has.
        self._under: OrderedDict[tuple[abi.IPAddress, int], str] = OrderedDict()
        self._lock = threading.Lock()
        self._queue: queue.Queue[tuple[Subject, abi.IPAddress] | None] = queue.Queue(_MOST_WAITING)
        self._is_closed = False
        self._news: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._workers = _WORKERS
        for number in range(self._workers):
            threading.Thread(target=self._work, name=f"asker-{number}", daemon=True).start()

    def close(self) -> None:
        """Nothing more is asked: its threads end, the latest when they have no more patience with an answer.

        No event may come any more.
        """
        with self._lock:  # nothing is written into the kernel from now on
            self._is_closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        for _ in range(self._workers):
            self._queue.put_nowait(None)

    def renew(self, ports: Iterable[int]) -> None:
        """The views are another policy's: registries that were found are refused by their names there too."""
        with self._lock:
            self._ports = tuple(ports)
            for (name, _), subject in self._subjects.items():
                if subject.registry and subject.until > time.monotonic():
                    with contextlib.suppress(OSError):  # a map is full
                        self._refuse_name(name)

    def take(self, event: Event) -> None:
        """A connection to an endpoint of which nothing is known."""
        if event.protocol != _TCP or event.pid == os.getpid():
            return
        key = (self._name_of(event.address), event.port)
        with self._lock:
            subject = self._subjects.setdefault(key, _Subject())
            self._subjects.move_to_end(key)
            while len(self._subjects) > _MOST_KNOWN:
                self._subjects.popitem(last=False)
            subject.addresses.add(event.address)
            self._note_connection(subject, event)
            if subject.until > time.monotonic():
                self._act_on(key, subject, [event.address])
                return
            if subject.asked:
                return
            subject.asked = True
        try:
            self._queue.put_nowait((key, event.address))
        except queue.Full:  # it is asked when somebody connects there again
            with self._lock:
                subject.asked = False

    def _name_of(self, address: abi.IPAddress) -> str:
        return self._history.name_of(address) or str(address)

    def _note_connection(self, subject: _Subject, event: Event) -> None:
        # A packet that comes in by a device has no socket here.
        which = event.socket_cookie or flow_of(event.packet)
        if not which:
            return
        known = subject.connections.setdefault(which, _Connection(event.scope, event.socket_cookie))
        known.packet = event.packet or known.packet
        known.pid = event.pid or known.pid
        while len(subject.connections) > _MOST_CONNECTIONS:
            del subject.connections[next(iter(subject.connections))]

    def note(self, answer: Answer) -> None:
        """A name was looked up: what is known of its addresses under other names says nothing any more."""
        with self._lock:
            for address, _ in answer.addresses:
                for port in self._ports:
                    subject = self._subjects.get((answer.name, port))
                    before = self._under.get((address, port))
                    if subject is not None and subject.registry:  # the kernel has learned it by itself
                        self._now_under(address, port, answer.name)
                    elif before is not None and before != answer.name:
                        del self._under[address, port]
                        self._forget(address, port)

    def _now_under(self, address: abi.IPAddress, port: int, name: str) -> None:
        self._under[address, port] = name
        self._under.move_to_end((address, port))
        while len(self._under) > _MOST_KNOWN:
            self._under.popitem(last=False)

    def tell(self) -> None:
        """Says what was found since the last call."""
        while True:
            try:
                host, explanation = self._news.get_nowait()
            except queue.Empty:
                return
            self._say("registry-found", explanation, host=host)

    def _views(self) -> list[View]:
        return [view for view in self._plane.views if view.posture is abi.Posture.REGISTRIES]

    def _work(self) -> None:
        while True:
            wanted = self._queue.get()
            if wanted is None:
                return
            key, address = wanted
            name, port = key
            found = None
            try:
                found = ask(address, port, None if name == str(address) else name, self._prepare)
            except Exception:  # whatever a stranger answers: the next one is asked all the same
                _log.exception("%s could not be asked", name)
            with self._lock:
                if self._is_closed:
                    return
                subject = self._subjects.get(key)
                if subject is None:
                    continue
                subject.asked = False
                subject.registry = found
                subject.until = time.monotonic() + (_KEEP if found is not None else _KEEP_SILENCE)
                # Some may have been given for another name meanwhile, of which this says nothing.
                subject.addresses = {a for a in subject.addresses if self._name_of(a) == name}
                self._act_on(key, subject, subject.addresses)
                if found:
                    becomes = "it would be refused" if self._audits() else "it is refused from now on"
                    explanation = f"a registry answers at {name}:{port}, and the policy does not allow it"
                    self._news.put((name, f"{explanation}: {becomes}"))

    def _prepare(self, item: socket.socket) -> None:
        """Our own connections pass, whatever is known. No cookie is given twice."""
        cookie = item.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
        self._plane.maps["own_sockets"][cookie] = struct.pack("=I", 1)

    def _act_on(self, key: Subject, subject: _Subject, addresses: Iterable[abi.IPAddress]) -> None:
        with contextlib.suppress(OSError):  # a map is full; it is tried again with the next event
            for address in addresses:
                self._act(key, subject, address)
            if subject.registry:
                self._refuse_name(key[0])
        if subject.registry and not self._audits():
            for connection in subject.connections.values():
                self._cut(connection)
        if subject.registry is not None:
            subject.connections.clear()

    def _act(self, key: Subject, subject: _Subject, address: abi.IPAddress) -> None:
        """Has the kernel know of one address what was found out about its name."""
        name, port = key
        self._now_under(address, port, name)
        left = subject.until - time.monotonic()
        expires = clock.now_ns() + int(max(left, 0) * clock.NANOSECONDS)
        if not subject.registry:
            # Nobody answered: with `unknown: deny` that is no reason to let anything pass.
            if subject.registry is False or not self._denies():
                self._plane.maps["asked"][abi.endpoint(address, port)] = struct.pack("=Q", expires)
            return
        for view in self._views():
            rule = view.tables.number_of_found({port})
            opening = bytes(abi.Opening(expires, rule, abi.OpeningFlag(0)))
            view.maps["seeded"][abi.opening_key(address, refused_list(port))] = opening

    def _refuse_name(self, name: str) -> None:
        if _is_address(name):
            return
        for view in self._views():
            # Of other names the policy or the catalogue says itself what holds: on other ports they may be
            # allowed, or refused on all.
            if view.tables.rules.match(name) is None:
                view.refuse_name(name, view.tables.number_of_found(self._found_ports(name)))

    def _denies(self) -> bool:
        return self._plane.settings.unknown is abi.Unknown.DENY

    def _audits(self) -> bool:
        return self._plane.settings.mode is abi.Mode.AUDIT

    def _found_ports(self, name: str) -> set[int]:
        known = ((port, self._subjects.get((name, port))) for port in self._ports)
        return {port for port, subject in known if subject is not None and subject.registry}

    def _forget(self, address: abi.IPAddress, port: int) -> None:
        self._plane.maps["asked"].discard(abi.endpoint(address, port))
        for view in self._views():
            view.maps["seeded"].discard(abi.opening_key(address, refused_list(port)))
        for scope in self._plane.scopes:
            if scope.view.posture is abi.Posture.REGISTRIES:
                scope.maps["learned"].discard(abi.opening_key(address, refused_list(port)))

    def _cut(self, connection: _Connection) -> None:
        """Nothing more leaves by it; where the kernel can end it, its owner knows at once."""
        self._cuts.add(REGISTRY_FOUND)
        flow = flow_of(connection.packet)
        scope = self._plane.scope(connection.scope)
        if connection.cookie:
            with contextlib.suppress(OSError):
                key = struct.pack("=Q", connection.cookie)
                self._plane.maps["cut_sockets"][key] = struct.pack("=I", 1)
        if flow is None:
            return
        if scope is not None and ESTABLISHED in scope.maps.maps:
            packed = abi.flow(flow.source, flow.source_port, flow.destination, flow.destination_port, _TCP)
            scope.maps[ESTABLISHED].discard(packed)
        if connection.cookie:
            ends = Connection(flow.source, flow.source_port, flow.destination, flow.destination_port)
            namespace = None if connection.pid is None else Path(f"/proc/{connection.pid}/ns/net")
            with contextlib.suppress(OSError):  # gone, or a kernel that cannot: its packets are dropped
                sockets.destroy(ends, connection.cookie, namespace)

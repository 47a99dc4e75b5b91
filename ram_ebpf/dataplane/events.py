"""Events of the programs, from wherever the kernel lets them leave them, as Python values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.features import compiler_flags
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.perf import PerfReader
from ram_ebpf.dataplane.plane import Plane

_SIZE = len(bytes(abi.Event()))
_FLOW_SIZE = len(bytes(abi.Flow()))
_UNKNOWN_UID = 2**32 - 1
_INCOMING = frozenset({abi.Hook.INET_INGRESS, abi.Hook.DEVICE_INCOMING})
_OUTGOING = frozenset({abi.Hook.INET_EGRESS, abi.Hook.DEVICE_OUTGOING})
_RESTING_PAGES = 16  # 64 KiB a CPU: what comes until the reader is awake
_QUESTIONS_AFTER = 50  # other events, at most, before it is looked again who waits


class Beginning(NamedTuple):
    """What a connection began with that was refused for it. `sent`: to the end of its name, if it has one."""

    local: abi.IPAddress
    local_port: int
    sent: bytes
    name: str | None


@dataclass(frozen=True)
class Event:
    """One event. What the kernel could not tell is None."""

    time_ns: int
    verdict: abi.Verdict
    reason: abi.Reason
    hook: abi.Hook
    address: abi.IPAddress
    port: int
    protocol: int
    rule: int
    scope: int
    detail: int  # see struct ram_event
    socket_cookie: int
    pid: int | None
    process: str | None
    uid: int | None
    cgroup_id: int | None
    packet: bytes  # from its IP header; empty where the event brings none
    dns_message: bytes | None  # what the packet carries, for events about DNS
    beginning: Beginning | None = None
    acknowledged: int = 0  # by a segment that is refused: the sequence number that its sender expects next

    @property
    def incoming(self) -> bool:
        """Whether it is about a packet on its way to what is governed."""
        return self.hook in _INCOMING

    @property
    def outgoing(self) -> bool:
        """Whether it is about a packet on its way out, as opposed to a system call."""
        return self.hook in _OUTGOING


class MalformedEventError(ValueError):
    """Bytes that are no event of this version."""


def _beginning(raw: bytes, length: int) -> Beginning | None:
    """struct ram_flow and what follows it, which ends with a name of that length."""
    if len(raw) < _FLOW_SIZE:
        return None
    flow = abi.Flow.from_buffer_copy(raw)
    sent = raw[_FLOW_SIZE:]
    name = sent[-length:].decode("ascii", "backslashreplace") if 0 < length <= len(sent) else None
    return Beginning(abi.unpack_address(bytes(flow.local)), flow.local_port, sent, name)


def parse_event(raw: bytes) -> Event:
    """Reads struct ram_event and the packet behind it. Raises MalformedEventError."""
    if len(raw) < _SIZE:
        raise MalformedEventError(f"{len(raw)} bytes are no event: it has {_SIZE}")
    event = abi.Event.from_buffer_copy(raw)
    try:
        verdict, reason, hook = abi.Verdict(event.verdict), abi.Reason(event.reason), abi.Hook(event.hook)
    except ValueError as error:
        raise MalformedEventError(str(error)) from error
    message = event.dns_offset - event.link_len
    packet = raw[_SIZE + event.link_len : _SIZE + event.packet_len]
    return Event(
        time_ns=event.time_ns,
        verdict=verdict,
        reason=reason,
        hook=hook,
        address=abi.unpack_address(bytes(event.address)),
        port=event.port,
        protocol=event.protocol,
        rule=event.rule,
        scope=event.scope,
        detail=event.detail,
        socket_cookie=event.socket_cookie,
        pid=event.pid or None,
        process=event.comm.decode(errors="replace") or None,
        uid=None if event.uid == _UNKNOWN_UID else event.uid,
        cgroup_id=event.cgroup_id or None,
        packet=b"" if event.beginning else packet,
        beginning=_beginning(packet, event.detail) if event.beginning else None,
        acknowledged=event.acknowledged,
        dns_message=packet[message:] if event.packet_len and message > 0 else None,
    )


class EventSource:
    """Takes events from the perf rings and, on kernels whose connect hooks cannot write there, the queue.

    There are two sets of rings for what can wait. While there is work, one is used that wakes nobody until it
    is half full, and is looked into ten times a second. While it rests, the other one wakes for each.
    """

    def __init__(self, plane: Plane) -> None:
        self._readers: list[PerfReader] = []
        try:
            self._questions = self._reader(plane.maps["questions"])
            self._resting = self._reader(plane.maps["events"], pages=_RESTING_PAGES)
            self._perf = self._reader(plane.maps["events"], patient=True)
        except OSError:
            self.close()
            raise
        # Where connect hooks can write into the rings, nothing comes by the queue.
        has_rings = "-DRAM_HAVE_SOCK_ADDR_PERF" in compiler_flags()
        self._queue = None if has_rings else plane.maps["connect_events"]
        self.malformed = 0
        self.overruns = 0
        """How often the queue was full, so that its oldest events may be gone: nobody counts those."""
        self.taken = 0
        """How many events there were so far."""
        self.rests = False

    def _reader(self, events: Map, pages: int = 64, patient: bool = False) -> PerfReader:
        reader = PerfReader(events, pages, patient=patient)
        self._readers.append(reader)
        return reader

    def rest(self) -> None:
        """From now on each event wakes the reader, where they can; `rests` then says so."""
        if not self.rests and self._queue is None:
            self._resting.install()
            self.rests = True

    def work(self) -> None:
        """From now on only those wake it that somebody waits for, or many."""
        if self.rests:
            self._perf.install()
            self.rests = False

    @property
    def descriptors(self) -> list[int]:
        """Readable when there are events that somebody waits for, or many others.

        Others, and the queue, have to be asked for every now and then.
        """
        return [descriptor for reader in self._readers for descriptor in reader.descriptors]

    @property
    def lost(self) -> int:
        """Events that the kernel dropped since the rings were full."""
        return sum(reader.lost for reader in self._readers)

    def drain_questions(self, take: Callable[[Event], None]) -> None:
        """Hands over the events that somebody waits for, by their time."""
        waiting: list[bytes] = []
        self._questions.drain(waiting.append)
        self._hand_over(waiting, take)

    def drain(self, take: Callable[[Event], None]) -> None:
        """Hands over all waiting events, by their time, and in between those that somebody waits for."""
        waiting: list[bytes] = []
        self._resting.drain(waiting.append)
        self._perf.drain(waiting.append)
        self._pop(waiting)
        taken = 0

        def take_in_turn(event: Event) -> None:
            nonlocal taken
            if taken % _QUESTIONS_AFTER == 0:
                self.drain_questions(take)
            taken += 1
            take(event)

        self.drain_questions(take)
        self._hand_over(waiting, take_in_turn)

    def _pop(self, waiting: list[bytes]) -> None:
        """What is in the queue, which may be filled as quickly: then the rest is for the next time."""
        if self._queue is None:
            return
        for _ in range(self._queue.shape.max_entries):
            raw = self._queue.pop()
            if raw is None:
                return
            waiting.append(raw)
        self.overruns += 1

    def _hand_over(self, waiting: list[bytes], take: Callable[[Event], None]) -> None:
        if not waiting:
            return
        self.taken += len(waiting)
        parsed = []
        for raw in waiting:
            try:
                parsed.append(parse_event(raw))
            except MalformedEventError:
                self.malformed += 1
        for event in sorted(parsed, key=lambda event: event.time_ns):
            take(event)

    def close(self) -> None:
        """Gives the rings back."""
        for reader in self._readers:
            reader.close()

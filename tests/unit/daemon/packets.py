"""IP packets of a client that asks a resolver over TCP."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace

import dns.message

from ram_ebpf.dataplane.abi import Hook, Reason
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dns.streams import FlowKey

from .samples import DNS_EVENT

SYN, ACK = 2, 16
CLIENT, RESOLVER = ipaddress.ip_address("10.77.0.10"), ipaddress.ip_address("10.0.0.53")
_HEADERS = 40


def query(name: str, kind: str = "A", more: bytes = b"") -> bytes:
    """A query as the stream has it, with its length in front; `more` stands behind its question."""
    wire = dns.message.make_query(name, kind).to_wire() + more
    return len(wire).to_bytes(2, "big") + wire


def flow(port: int = 40000) -> FlowKey:
    """The connection of a client's port."""
    return FlowKey(CLIENT, port, RESOLVER, 53)


def packet(data: bytes, sequence: int, port: int = 40000) -> bytes:
    """A segment in its packet."""
    segment = struct.pack("!HHIIBBHHH", port, 53, sequence, 1, 5 << 4, ACK, 65535, 0, 0) + data
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 1, 0x4000, 64, 6, 0)
    return header + CLIENT.packed + RESOLVER.packed + segment


class Stream:
    """A connection, and the events that the kernel makes of its segments."""

    def __init__(self, scope: int = 0, port: int = 40000) -> None:
        self._scope = scope
        self._port = port
        self._sequence = 1000
        self.sent = 0  # segments with data: what the kernel counts

    @property
    def flow(self) -> FlowKey:
        """The connection."""
        return flow(self._port)

    def send(self, data: bytes, rule: int = 0) -> Event:
        """The event of the next segment. `rule`: of the name in it, when it holds just one query."""
        self.sent += 1
        event = replace(
            DNS_EVENT,
            reason=Reason.DNS_OVER_TCP,
            hook=Hook.INET_EGRESS,
            protocol=6,
            rule=rule,
            scope=self._scope,
            detail=self.sent,
            packet=packet(data, self._sequence, self._port),
            dns_message=data,
        )
        self._sequence += len(data)
        return event

    def again(self, event: Event) -> Event:
        """The event of a segment that is sent once more."""
        self.sent += 1
        return replace(event, detail=self.sent)

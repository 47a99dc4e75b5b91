"""Connections that begin with a name, as a device sees them."""

from __future__ import annotations

import ssl
import struct
from functools import cache
from ipaddress import ip_address

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Stage
from ram_ebpf.dataplane.devices import BEHIND

from .support import CLIENT, Bench

REGISTRIES = """
  - host: registry.test
    ports: [443, 5000]
  - host: "*.one.test"
  - host: "**.deep.test"
  - host: "edge-*.glob.test"
  - host: other.test
    ports: [8443]
  - host: private.test
    private: [10.20.0.0/16]
  - address: 192.0.2.0/24
"""
DENIED_NAMES = "  - denied.deep.test"

THERE, PRIVATE = "198.51.100.7", "10.20.0.7"
START = 1000
DATA = b"\x17\3\3\0\x0fencrypted bytes"  # a record of application data


def hello(name: str | None, **changes: object) -> bytes:
    """What OpenSSL sends first."""
    context = ssl.create_default_context()
    for key, value in changes.items():
        setattr(context, key, value)
    context.check_hostname = False
    outgoing = ssl.MemoryBIO()
    item = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        item.do_handshake()
    return outgoing.read()


_SYN, _PSH, _ACK = 0x02, 0x08, 0x10
URGENT = 0x30  # with ACK


@cache
def _addresses(source: str, destination: str) -> bytes:
    return ip_address(source).packed + ip_address(destination).packed


def _frame(source: str, destination: str, segment: bytes) -> bytes:
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0)
    header += _addresses(source, destination)
    return b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + header + segment


class Connection:
    """A client's TCP connection as a device sees it, with sequence numbers from `start` on."""

    def __init__(self, bench: Bench, there: str = THERE, port: int = 443, start: int = START) -> None:
        self.bench = bench
        self.there = there
        self.port = port
        self.source_port = 40000
        self.start = start

    def segment(self, payload: bytes, at: int = 0, flags: int = _PSH | _ACK) -> bytes:
        """One of the client's; `at`: the number of its first byte, from 0.

        Put together by hand, since scapy takes most of the time of a test that sends thousands.
        """
        number = (self.start + 1 + at) % 2**32
        tcp = struct.pack("!HHIIBBHHH", self.source_port, self.port, number, 8, 5 << 4, flags, 65535, 0, 0)
        return _frame(CLIENT, self.there, tcp + payload)

    def syn(self, payload: bytes = b"") -> bool:
        """Whether the connection's first segment may leave."""
        return self.bench.egress(self.segment(payload, -1, _SYN))

    def answer(self, ack: int | None = None) -> None:
        """The other end's SYN, which acknowledges the client's, or something else."""
        number = (self.start + 1) % 2**32 if ack is None else ack
        tcp = struct.pack(
            "!HHIIBBHHH", self.port, self.source_port, 7, number, 5 << 4, _SYN | _ACK, 65535, 0, 0
        )
        assert self.bench.ingress(_frame(self.there, CLIENT, tcp))

    def open(self) -> Connection:
        assert self.syn()
        self.answer()
        self.bench.counted()
        return self

    def sends(self, payload: bytes, at: int = 0, flags: int = _PSH | _ACK) -> bool:
        return self.bench.egress(self.segment(payload, at, flags))

    @property
    def key(self) -> bytes:
        """Of it in `established`."""
        return abi.flow(ip_address(CLIENT), self.source_port, ip_address(self.there), self.port, 6)

    def forget(self) -> None:
        """Nothing of it is known any more."""
        self.bench.map("established").discard(self.key)
        self.bench.map("beginnings").discard(self.key[:-4] + b"\0\0\0\0")

    @property
    def exact_stage(self) -> Stage | None:
        raw = self.bench.map("established").get(self.key)
        return None if raw is None else Stage(abi.Connection.from_buffer_copy(raw).stage)

    @property
    def stage(self) -> Stage | None:
        """NAMED: its name was let through, whatever is read behind that."""
        exact = self.exact_stage
        return Stage.NAMED if exact in (Stage.TUNNELLED, Stage.DONE) else exact


def opened_at_device(bench: Bench) -> Bench:
    """Addresses are open, and no connection is known."""
    bench.scope.programs_for(BEHIND)
    bench.map("established").clear()
    bench.open("learned", THERE, (443, 5000), 3600, bench.rule_of("registry.test"))
    bench.open("learned", THERE, (443,), 3600, bench.rule_of("*.one.test"))
    bench.open("learned", PRIVATE, (443,), 3600, bench.rule_of("private.test"))
    return bench


def fresh(opened: Bench, start: int = START, port: int = 443) -> Connection:
    """Another connection with the same ports, of which nothing is known."""
    connection = Connection(opened, port=port, start=start)
    connection.forget()
    return connection.open()

"""Attacks on the daemon's memory: things that it might keep something for, each another one."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial import lies
from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon
from tests.adversarial.packets import A, labels_of, response, wire_name
from tests.faults import memory
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.rogue import RogueDns

REPLIES, RECORDS = 1000, 60
MOST = 10 << 20  # bytes; dnspython takes 40 MB
POLICY = f"""\
version: 1
registries: [{{ host: allowed.registry.test, private: true }}]
refusals: {{ responder: off }}
resolvers: [{Lab.resolver}, {Lab.rogue_resolver}]
"""


@pytest.fixture
def rogue(lab: Lab) -> Iterator[RogueDns]:
    with RogueDns(lab.dns.node, Path(lies.__file__)) as result:
        yield result


def _wait_until_idle(pid: int) -> None:
    """Until it has taken no processor time for half a second."""
    deadline, before = time.monotonic() + 60, ""
    while (now := Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[0]) != before:
        assert time.monotonic() < deadline
        before = now
        time.sleep(0.5)


def test_records_of_ever_new_types_and_classes(lab: Lab, rogue: RogueDns) -> None:
    """Anybody who can send a datagram to a client sends replies that nobody asked for."""
    question = wire_name(*labels_of("hoard.lies.test")) + struct.pack("!HH", A, 1)
    with ScopedDaemon(lab, POLICY, scopes=[lab.client_cgroup]) as daemon:
        with Actor(lab.client, lab.client_cgroup) as client:
            item = client.socket(socket.AF_INET, socket.SOCK_DGRAM)
            item.bind((topology.CLIENT, 0))
            port = item.port()
            for number in range(2 * REPLIES):
                if number == REPLIES:  # what it needs for the first thousand it may keep
                    _wait_until_idle(daemon.pid)
                    before = memory.measure(daemon.pid).resident
                new = range(number * RECORDS, (number + 1) * RECORDS) if number >= REPLIES else [0] * RECORDS
                records = (b"\0" + struct.pack("!HHIH", 256 + n % 4096, 2 + n // 4096, 60, 0) for n in new)
                rogue.send(struct.pack("!H", number) + response(question, *records), topology.CLIENT, port)
                item.drain()
            _wait_until_idle(daemon.pid)
            after = memory.measure(daemon.pid).resident
    assert after - before < MOST

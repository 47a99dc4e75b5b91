"""What the responder's process tells of its clients: how many were answered, and how many had to give way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest

from ram_ebpf.daemon.responder_state import SERVED
from ram_ebpf.responder import process
from ram_ebpf.responder.channel import ALIVE, LONGEST, ChannelError, Question, Reply, Served, Start, pair
from ram_ebpf.responder.process import Channel, Server

REQUEST = b"GET /v2/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"


def test_they_come_back() -> None:
    assert Served.unpack(Served(3, 2, 1).pack()) == Served(3, 2, 1)
    assert tuple(Served.__dataclass_fields__) == SERVED


@pytest.mark.parametrize("packet", [ALIVE, Question(7, "127.0.0.1", 40000, None).pack()])
def test_other_packets(packet: bytes) -> None:
    assert Served.unpack(packet) is None


@pytest.mark.parametrize(
    "served", [None, 1, [], [1, 2], [1, 2, 3, 4], [1, 2, -1], [1, 2, 2**53], [1, 2, True], [1, 2, 1.5]]
)
def test_counts_that_are_none(served: object) -> None:
    """The process that says so may have been taken over."""
    with pytest.raises(ChannelError):
        Served.unpack(json.dumps({"served": served}).encode())


async def serve(end: socket.socket, other: socket.socket) -> list[bytes]:
    """Four clients of two at most: two that wait in vain, one that goes, one that asks."""
    for item in (end, other):
        item.setblocking(False)
    channel = Channel(other)
    loop = asyncio.get_running_loop()

    def answer() -> None:
        question = Question.unpack(end.recv(LONGEST))
        end.send(Reply(question.number, "no").pack())

    loop.add_reader(end, answer)
    loop.add_reader(other, channel.take)
    listening = await asyncio.start_server(Server(Start(b"", b""), channel).serve, "127.0.0.1", 0)
    address = listening.sockets[0].getsockname()
    first, _first = await asyncio.open_connection(*address)
    _, gone = await asyncio.open_connection(*address)
    gone.close()
    await asyncio.sleep(0.05)
    second, _second = await asyncio.open_connection(*address)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(REQUEST)
    assert b"no" in await reader.read()
    with contextlib.suppress(ConnectionError):
        assert await first.read() == b""
    assert not second.at_eof()
    loop.remove_reader(end)
    writer.close()
    while not channel.served.answered:
        await asyncio.sleep(0.005)
    assert channel.beat()
    assert channel.beat()
    said = [end.recv(LONGEST) for _ in range(3)]
    loop.remove_reader(other)
    listening.close()
    _first.close()
    _second.close()
    return said


def test_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_CONNECTIONS", 2)
    end, other = pair()
    with end, other:
        alive, told, again = asyncio.run(asyncio.wait_for(serve(end, other), 10))
    assert (alive, again) == (ALIVE, ALIVE)
    assert Served.unpack(told) == Served(answered=1, unanswered=1, shed=1)

"""Questions of the responder's process to the daemon, several at a time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from ram_ebpf.responder import process
from ram_ebpf.responder.channel import LONGEST, Question, Reply, pair
from ram_ebpf.responder.process import Channel, _HangUpError

Answer = Callable[[socket.socket, list[Question]], None]


async def ask(answer: Answer, *names: str) -> list[Reply | BaseException]:
    """What each of these is told by a daemon that answers when it has all questions."""
    end, other = pair()
    with end, other:
        for item in (end, other):
            item.setblocking(False)
        channel, questions = Channel(other), list[Question]()

        def hear() -> None:
            questions.append(Question.unpack(end.recv(LONGEST)))
            if len(questions) == len(names):
                answer(end, questions)

        loop = asyncio.get_running_loop()
        loop.add_reader(end, hear)
        loop.add_reader(other, channel.take)
        try:
            asking = (channel.ask("127.0.0.1", 40000 + number, name) for number, name in enumerate(names))
            return list(await asyncio.gather(*asking, return_exceptions=True))
        finally:
            loop.remove_reader(end)
            loop.remove_reader(other)


def test_each_is_told_its_own() -> None:
    """Also where another one has been told before, and is done."""

    def answer(end: socket.socket, questions: list[Question]) -> None:
        for pause, question in enumerate(questions):
            reply = Reply(question.number, f"about {question.name}").pack()
            asyncio.get_running_loop().call_later(0.05 * pause, end.send, reply)

    told = asyncio.run(asyncio.wait_for(ask(answer, "a.test", "b.test", "c.test"), 5))
    assert [reply.text for reply in told if isinstance(reply, Reply)] == [
        "about a.test",
        "about b.test",
        "about c.test",
    ]


def test_nobody_waits_for_a_daemon_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_ASK_PATIENCE", 0.05)
    told = asyncio.run(asyncio.wait_for(ask(lambda end, questions: None, "a.test", "b.test"), 5))
    assert [type(reply) for reply in told] == [_HangUpError, _HangUpError]

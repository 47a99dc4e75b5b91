"""What the process without rights sends is taken for a stranger's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.responder.channel import ChannelError, Question, Reply, Start

QUESTION = Question(7, "127.0.0.1", 40000, "evil.example")


@pytest.mark.parametrize("question", [QUESTION, Question(0, "::1", 1, None)])
def test_questions_come_back(question: Question) -> None:
    assert Question.unpack(question.pack()) == question


def test_replies_come_back() -> None:
    reply = Reply(7, "text é", {"port": 443}, (b"\0\xff", b""))
    assert Reply.unpack(reply.pack()) == reply
    assert Start.unpack(Start(b"key", b"\0").pack()) == Start(b"key", b"\0")


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"number": 2**63},
        {"number": True},
        {"number": "7"},
        {"client": 1},
        {"client": "1" * 65},
        {"port": 0},
        {"port": 65536},
        {"port": 1.5},
        {"name": 5},
        {"name": "a" * 256},
    ],
)
def test_questions_that_are_none(change: dict[str, object]) -> None:
    packet = json.loads(QUESTION.pack()) | change
    with pytest.raises(ChannelError):
        Question.unpack(json.dumps(packet).encode())


@given(st.binary(max_size=200))
def test_any_bytes(packet: bytes) -> None:
    for kind in (Question, Reply, Start):
        with pytest.raises(ChannelError):
            kind.unpack(packet)


@pytest.mark.parametrize("packet", [b"[" * 60000, b"{}", b"[]", b'{"number": 1}', b"null"])
def test_other_json(packet: bytes) -> None:
    for kind in (Question, Reply, Start):
        with pytest.raises(ChannelError):
            kind.unpack(packet)

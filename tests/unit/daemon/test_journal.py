"""The journal's own protocol, read at the other end as journald reads it."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.daemon.fields import priority_of
from ram_ebpf.daemon.journal import MESSAGE_IDS, Journal, journal_of
from ram_ebpf.daemon.records import RecordWriter

RECORD: dict[str, Any] = {
    "event": "denied",
    "reason": "denied-unknown-address",
    "host": "evil.example",
    "port": 443,
    "scope": "engine:docker",
    "explanation": "evil.example is not in the policy",
    "message": "Ask platform@acme.example.",
}


class Listener:
    """A socket as journald has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def entry(self) -> dict[str, list[str]]:
        """The fields of one datagram, each with all its values."""
        found: dict[str, list[str]] = {}
        data = self._socket.recv(1 << 20)
        while data:
            line, _, rest = data.partition(b"\n")
            name, equals, value = line.partition(b"=")
            if not equals:
                (length,) = struct.unpack_from("<Q", rest)
                value, rest = rest[8 : 8 + length], rest[8 + length :]
                assert rest.startswith(b"\n")
                rest = rest[1:]
            found.setdefault(name.decode(), []).append(value.decode())
            data = rest
        return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(tmp_path / "socket")
    yield made
    made.close()


@pytest.fixture
def journal(listener: Listener) -> Iterator[Journal]:
    made = Journal(listener.path)
    yield made
    made.close()


def test_fields(journal: Journal, listener: Listener) -> None:
    record = {**RECORD, "addresses": ["192.0.2.1", "192.0.2.2"], "counters": {"denied-port": 3}, "scopes": []}
    assert journal.send(record, "the line")
    assert listener.entry() == {
        "MESSAGE": ["the line"],
        "PRIORITY": ["4"],
        "SYSLOG_IDENTIFIER": ["ram-ebpf"],
        "MESSAGE_ID": [MESSAGE_IDS["denied"]],
        "RAM_EVENT": ["denied"],
        "RAM_REASON": ["denied-unknown-address"],
        "RAM_HOST": ["evil.example"],
        "RAM_PORT": ["443"],
        "RAM_SCOPE": ["engine:docker"],
        "RAM_EXPLANATION": ["evil.example is not in the policy"],
        "RAM_MESSAGE": ["Ask platform@acme.example."],
        "RAM_ADDRESSES": ["192.0.2.1", "192.0.2.2"],
        "RAM_COUNTERS": ['{"denied-port": 3}'],
    }


@pytest.mark.parametrize("key", ["host", "name", "process", "cgroup", "explanation"])
@pytest.mark.parametrize(
    "value",
    [
        "a\nPRIORITY=0",
        "a\n\nMESSAGE=b\nRAM_HOST=ghcr.io",
        "a\nMESSAGE\n\x01\0\0\0\0\0\0\0b\n",
        "a\r\x1b[2J\0\x85\u2028\u202e",
        "\udcff=\n",
    ],
)
def test_names_forge_nothing(journal: Journal, listener: Listener, key: str, value: str) -> None:
    assert journal.send({**RECORD, key: value}, value)
    found = listener.entry()
    assert set(found) == {*map("RAM_{}".format, map(str.upper, {**RECORD, key: ""}))} | {
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "MESSAGE_ID",
    }
    assert all(len(values) == 1 and values[0].isprintable() for values in found.values())
    assert found["PRIORITY"] == ["4"]
    assert found[f"RAM_{key.upper()}"] == found["MESSAGE"]


def test_priorities() -> None:
    events = ("denied", "would-deny", "ready", "learned", "never heard of")
    assert [priority_of(event) for event in events] == [4, 5, 6, 7, 6]


def test_message_ids() -> None:
    assert len(set(MESSAGE_IDS.values())) == len(MESSAGE_IDS)
    assert all(len(value) == 32 and int(value, 16) for value in MESSAGE_IDS.values())
    document = (Path(__file__).parents[3] / "docs/logging.md").read_text(encoding="utf-8")
    assert all(f"| `{event}` | `{value}` |" in document for event, value in MESSAGE_IDS.items())


# --- where there is a journal


def test_which_stream(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as stream:
        status = os.fstat(stream.fileno())
        found = journal_of(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert found is not None
        found.close()
        for text in (f"{status.st_dev}:{status.st_ino + 1}", "", "1", f"{status.st_dev}:"):
            assert journal_of(stream, {"JOURNAL_STREAM": text}) is None
        assert journal_of(stream, {}) is None
    assert journal_of(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}) is None
    assert journal_of(io.StringIO(), {"JOURNAL_STREAM": "1:2"}) is None


@pytest.mark.parametrize("as_json", [False, True])
def test_line_goes_there_alone(journal: Journal, listener: Listener, as_json: bool) -> None:
    stream = io.StringIO()
    RecordWriter(as_json, stream, journal).write(RECORD)
    assert stream.getvalue() == ""
    (text,) = listener.entry()["MESSAGE"]
    if as_json:
        assert {**json.loads(text), "time": ""} == {**RECORD, "time": ""}
    else:  # the journal has a time of its own
        assert text == "DENIED evil.example: evil.example is not in the policy. Ask platform@acme.example."


def test_a_journal_that_takes_nothing(tmp_path: Path) -> None:
    """Then the line goes where standard output leads, as without fields."""
    stream, journal = io.StringIO(), Journal(tmp_path / "nobody")
    RecordWriter(False, stream, journal).write(RECORD)
    assert "Z DENIED evil.example: evil" in stream.getvalue()
    journal.close()


def test_a_journal_that_does_not_read(journal: Journal, listener: Listener) -> None:
    """Nobody waits for it."""
    stream = io.StringIO()
    writer = RecordWriter(False, stream, journal)
    for _ in range(2000):
        writer.write(RECORD)
    taken = 0
    while True:
        try:
            listener.entry()
        except BlockingIOError:
            break
        taken += 1
    assert 0 < taken < 2000
    assert stream.getvalue().count("\n") == 2000 - taken


def test_more_than_a_datagram_holds(journal: Journal, listener: Listener) -> None:
    stream = io.StringIO()
    RecordWriter(True, stream, journal).write({"event": "ready", "scopes": ["x" * 4096] * 500})
    assert len(json.loads(stream.getvalue())["scopes"]) == 500

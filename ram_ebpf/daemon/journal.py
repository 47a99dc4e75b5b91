"""The journal of systemd, told each line with its fields, so that they can be searched for.

In its own protocol (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/), of which one function is all that is
needed. python3-systemd would do as well, but PyPI has it without wheels: it takes a compiler and libsystemd's
headers where ram-ebpf is installed, and what it cannot send it gives nobody back to write elsewhere.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from ram_ebpf.daemon.fields import fields_of, priority_of
from ram_ebpf.printable import printable

SOCKET = Path("/run/systemd/journal/socket")
_IDENTIFIER = "ram-ebpf"
_FIELD = re.compile("[A-Z][A-Z0-9_]{0,63}")
_PREFIX = "RAM_"

MESSAGE_IDS = {
    "denied": "b7e7a5a264dc4f9ebbb1cae74d416363",
    "would-deny": "2907dbee87894c0182e6840342c32aa1",
    "suppressed": "3963101270ae48d68490375685a044a2",
    "events-lost": "ddda7863005f48eb84e0b7d17cbf4c34",
    "ready": "91d0acaba2ee41ba863cdf477fcee3dc",
    "reloaded": "03949f9056354ea292fb19030d1df7e6",
    "reload-failed": "44085cc3a2b74381a602038d94a97e56",
    "stopped": "7d2cb767034e49519cbc50973f74111a",
}
"""What such lines are found by, whatever their words; never to be changed."""


class Journal:
    """Where standard output is the journal. For one thread alone."""

    def __init__(self, path: Path = SOCKET) -> None:
        """Nothing is sent yet, so nobody has to be there."""
        self._address = os.fspath(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def send(self, record: Mapping[str, Any], text: str) -> bool:
        """One line, its fields and its text. False: the journal has not taken it, so write it elsewhere."""
        try:
            self._socket.sendto(b"".join(_fields(record, text)), self._address)
        except OSError:  # restarted, busy, or more than fits in a datagram
            return False
        return True

    def close(self) -> None:
        """Nothing is sent any more."""
        self._socket.close()


def journal_of(stream: TextIO, environment: Mapping[str, str] | None = None) -> Journal | None:
    """The journal, if that is where the stream leads: JOURNAL_STREAM has device and inode (systemd.exec(5)).

    A service may have its standard output in a file and standard error in the journal: then this is None.
    """
    found = (os.environ if environment is None else environment).get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return None
    return Journal() if found == f"{status.st_dev}:{status.st_ino}" else None


def _fields(record: Mapping[str, Any], text: str) -> Iterator[bytes]:
    event = str(record["event"])
    yield _field("MESSAGE", text)
    yield _field("PRIORITY", str(priority_of(event)))
    yield _field("SYSLOG_IDENTIFIER", _IDENTIFIER)
    if event in MESSAGE_IDS:
        yield _field("MESSAGE_ID", MESSAGE_IDS[event])
    for key, value in fields_of(record):
        yield _field(_PREFIX + key.upper(), value)


def _field(name: str, value: str) -> bytes:
    """In the form with a length, in which no value can end itself and begin another field."""
    if not _FIELD.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a field")
    data = printable(value).encode()
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"

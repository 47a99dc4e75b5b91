"""A ClientHello taken apart and put together again (RFC 8446 4.1.2, 5.1)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

SERVER_NAME, PADDING = 0, 21
_RECORD_HEADER, _MESSAGE_HEADER = 5, 4
_VERSION_AND_RANDOM = 34


@dataclass(frozen=True)
class Extension:
    kind: int
    content: bytes

    def __bytes__(self) -> bytes:
        return struct.pack("!HH", self.kind, len(self.content)) + self.content


@dataclass(frozen=True)
class Hello:
    """One in a single record. `head`: from the version to the compression methods."""

    record_version: bytes
    head: bytes
    extensions: Sequence[Extension]

    @classmethod
    def of(cls, sent: bytes) -> Hello:
        """Takes apart what a client has sent."""
        message = sent[_RECORD_HEADER:]
        at = _MESSAGE_HEADER + _VERSION_AND_RANDOM
        for size in (1, 2, 1):
            at += size + int.from_bytes(message[at : at + size], "big")
        head = message[_MESSAGE_HEADER:at]
        extensions = []
        at += 2
        while at < len(message):
            kind, size = struct.unpack_from("!HH", message, at)
            extensions.append(Extension(kind, message[at + 4 : at + 4 + size]))
            at += 4 + size
        return cls(sent[1:3], head, extensions)

    def __bytes__(self) -> bytes:
        content = b"".join(map(bytes, self.extensions))
        body = self.head + struct.pack("!H", len(content)) + content
        message = b"\1" + len(body).to_bytes(3, "big") + body
        return record(message, self.record_version)

    def padded(self, size: int) -> Hello:
        """With an extension of that many bytes in front of the others (RFC 7685)."""
        return replace(self, extensions=[Extension(PADDING, bytes(size)), *self.extensions])

    @property
    def without_last(self) -> int:
        """How many bytes of it say which names it has: all but what the last extension holds, if no name."""
        last = self.extensions[-1]
        return len(bytes(self)) - (0 if last.kind == SERVER_NAME else len(last.content))


def record(content: bytes, version: bytes = b"\3\1", kind: int = 22) -> bytes:
    return bytes([kind]) + version + struct.pack("!H", len(content)) + content


def server_name(*names: bytes, kind: int = 0) -> Extension:
    """RFC 6066 3."""
    names_in_list = b"".join(struct.pack("!BH", kind, len(name)) + name for name in names)
    return Extension(SERVER_NAME, struct.pack("!H", len(names_in_list)) + names_in_list)


def with_names(sent: bytes, *names: bytes, padding: int = 0) -> bytes:
    """With a server_name for each, and so many bytes behind the first one. `sent`: without any."""
    made = Hello.of(sent)
    first, *others = map(server_name, names)
    between = Extension(PADDING, bytes(padding))
    return bytes(replace(made, extensions=[first, between, *others, *made.extensions]))


def in_records(sent: bytes, *ends: int) -> bytes:
    """The same message in records that end there, counted without their headers. `sent`: in one record."""
    message = sent[_RECORD_HEADER:]
    inside = sorted({end for end in ends if 0 < end < len(message)})
    return b"".join(
        record(message[begin:stop], sent[1:3], sent[0])
        for begin, stop in itertools.pairwise([0, *inside, len(message)])
    )

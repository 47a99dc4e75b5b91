"""What the responder's process and the daemon say to each other: a JSON object a packet (SOCK_SEQPACKET)."""

from __future__ import annotations

import base64
import binascii
import json
import socket
from dataclasses import dataclass, field
from typing import Any

LONGEST = 65536
"""Bytes of a packet."""


class ChannelError(ValueError):
    """A packet that the other side cannot have meant."""


@dataclass(frozen=True)
class Question:
    """Of the process, for one connection. `client` and `port`: its other end; `name`: what it asked for, as
    it was sent, or None."""

    number: int
    client: str
    port: int
    name: str | None

    def pack(self) -> bytes:
        """For the channel."""
        return _pack({"number": self.number, "client": self.client, "port": self.port, "name": self.name})

    @classmethod
    def unpack(cls, packet: bytes) -> Question:
        """The reverse. The process that sends this has spoken with strangers: raises ChannelError."""
        found = _unpack(packet)
        number, client, port, name = (found.get(key) for key in ("number", "client", "port", "name"))
        if type(number) is not int or not isinstance(client, str) or type(port) is not int:
            raise ChannelError("no question")
        if not 0 <= number < 2**63 or not 0 < port < 65536 or len(client) > 64:
            raise ChannelError("a question with other numbers")
        if name is not None and not (isinstance(name, str) and len(name) <= 255):
            raise ChannelError("a question with another name")
        return cls(number, client, port, name)


@dataclass(frozen=True)
class Reply:
    """What to say. `chain`: DER certificates, the server's first; or none, and the message's is shown."""

    number: int
    text: str
    detail: dict[str, Any] = field(default_factory=dict)
    chain: tuple[bytes, ...] = ()

    def pack(self) -> bytes:
        """For the channel."""
        chain = [base64.b64encode(item).decode("ascii") for item in self.chain]
        return _pack({"number": self.number, "text": self.text, "detail": self.detail, "chain": chain})

    @classmethod
    def unpack(cls, packet: bytes) -> Reply:
        """The reverse. Raises ChannelError."""
        found = _unpack(packet)
        try:
            chain = tuple(base64.b64decode(item, validate=True) for item in found["chain"])
            return cls(int(found["number"]), str(found["text"]), dict(found["detail"]), chain)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ChannelError(f"no reply: {error}") from error


@dataclass(frozen=True)
class Start:
    """The first packet to the process: its key, and the certificate whose name is the message (DER)."""

    key_pem: bytes
    certificate: bytes

    def pack(self) -> bytes:
        """For the channel."""
        return _pack({name: base64.b64encode(getattr(self, name)).decode("ascii") for name in _OF_START})

    @classmethod
    def unpack(cls, packet: bytes) -> Start:
        """The reverse. Raises ChannelError."""
        found = _unpack(packet)
        try:
            return cls(*(base64.b64decode(found[name], validate=True) for name in _OF_START))
        except (KeyError, TypeError, binascii.Error) as error:
            raise ChannelError(f"no start: {error}") from error


@dataclass(frozen=True)
class Change:
    """Listeners of one more network namespace, whose descriptors come along; or without any, its end."""

    place: int

    def pack(self) -> bytes:
        """For the channel."""
        return _pack({"place": self.place})

    @classmethod
    def unpack(cls, packet: bytes) -> Change | None:
        """The reverse; None for another packet. Raises ChannelError."""
        found = _unpack(packet)
        if "place" not in found:
            return None
        if type(found["place"]) is not int:
            raise ChannelError("no change")
        return cls(found["place"])


@dataclass(frozen=True)
class Served:
    """Of the process: how many connections have ended since its start, by what came of them."""

    answered: int = 0
    """They were told something."""
    unanswered: int = 0
    """They went away before, said nothing that could be understood, or took too long."""
    shed: int = 0
    """They had to give way, as there were too many."""

    def pack(self) -> bytes:
        """For the channel."""
        return _pack({"served": [self.answered, self.unanswered, self.shed]})

    @classmethod
    def unpack(cls, packet: bytes) -> Served | None:
        """The reverse; None for another packet. Raises ChannelError."""
        found = _unpack(packet)
        if "served" not in found:
            return None
        numbers = found["served"]
        if not isinstance(numbers, list) or len(numbers) != 3:
            raise ChannelError("no counts")
        if not all(type(number) is int and 0 <= number < 2**53 for number in numbers):
            raise ChannelError("counts with other numbers")
        return cls(*numbers)


MOST_LISTENERS = 2
"""Descriptors that come with one packet."""
_OF_START = ("key_pem", "certificate")
ALIVE = b"{}"
"""What the process says every second, and first when it is ready."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _pack(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode("ascii")


def _unpack(packet: bytes) -> dict[str, Any]:
    try:
        value = json.loads(packet)
    except (ValueError, RecursionError) as error:
        raise ChannelError("not JSON") from error
    if not isinstance(value, dict):
        raise ChannelError("not an object")
    return value

"""Asking a resolver from inside the scope, and whether an address is open or shut there afterwards."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from typing import Any

import pytest
from pyroute2 import NetlinkError

from tests.adversarial.actor import Actor, RemoteSocket
from tests.adversarial.field import PORT, Field, eventually, tcp_connect
from tests.adversarial.packets import A, address_for, labels_of, wire_name
from tests.lab import topology

SHUT = "denied-unknown-address"


def name_of(text: str) -> bytes:
    """An ordinary name on the wire."""
    return wire_name(*labels_of(text))


def give(field: Field, name: bytes, kind: int = A) -> str:
    """Makes the address that lies.py answers with for a name one of the attacker's registry."""
    address = address_for(name, kind)
    serve(field, address)
    return address


def serve(field: Field, address: str) -> None:
    """Makes an address one of the attacker's registry, where it is none of the client itself."""
    found = ipaddress.ip_address(address)
    found = getattr(found, "ipv4_mapped", None) or found
    if not (found.is_loopback or found.is_unspecified):
        with contextlib.suppress(NetlinkError):  # another test has done so
            field.lab.blocked.node.add_addresses(str(found))


def ask(
    field: Field,
    wire: bytes,
    replies: int = 1,
    resolver: str = topology.ROGUE_RESOLVER,
    port: int = 53,
    actor: Actor | None = None,
) -> RemoteSocket:
    """Sends a query to the resolver and takes its replies."""
    family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
    item = (actor or field.inside).socket(family, socket.SOCK_DGRAM)
    item.sendto(wire, (resolver, port))
    for _ in range(replies):
        item.recv()
    return item


def is_open(actor: Actor, address: str, port: int = PORT) -> bool:
    """Whether the actor may connect there; whether anybody listens does not matter."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    item = actor.socket(family, socket.SOCK_STREAM)
    try:
        item.connect((address, port))
    except PermissionError:
        return False
    except OSError as error:
        # A route without a way is told only to whom the hook has let through.
        if error.errno not in (errno.ECONNREFUSED, errno.ETIMEDOUT, errno.ENETUNREACH, errno.EHOSTUNREACH):
            raise
    finally:
        item.close()
    return True


def assert_shut(field: Field, address: str, reason: str = SHUT, actor: Actor | None = None) -> None:
    """No connection can be opened there, and the log says why."""
    start = len(field.daemon.lines())
    registry = field.lab.blocked
    before = registry.counters()["Tcp.PassiveOpens"]
    with pytest.raises(PermissionError) as caught:
        tcp_connect(actor or field.inside, address)
    assert caught.value.errno == errno.EPERM
    field.reason(start, (reason,), address)
    assert registry.counters()["Tcp.PassiveOpens"] == before


def assert_stays_shut(field: Field, address: str, seconds: float = 0.7) -> None:
    """The same for a while: names that are asked again by the daemon take a moment."""
    start = len(field.daemon.lines())
    assert not eventually(lambda: is_open(field.inside, address), seconds), f"{address} was opened"
    field.reason(start, (SHUT,), address)


def assert_opens(field: Field, address: str, patience: float = 3.0) -> None:
    """The address is open, or becomes so soon: what the daemon asks itself takes a moment."""
    assert eventually(lambda: is_open(field.inside, address), patience), f"{address} stays shut"


def dns_line(field: Field, start: int, reason: str, host: str | None = None) -> dict[str, Any]:
    """The first line from number `start` on with the reason, about a name if one is given."""
    return field.line(
        start,
        lambda line: line.get("reason") == reason and (host is None or line.get("host") == host),
        reason if host is None else f"{reason} for {host}",
    )


def ignored_line(field: Field, start: int) -> dict[str, Any]:
    """The first line from number `start` on about a reply that is not believed, for whichever reason."""
    return field.line(start, lambda line: line["event"] == "ignored-reply", "an ignored reply")

"""The field of the battery: an attacker inside the scope, the same one outside, and who watches the wire.

An attack is a function of an actor and a target. It is made from inside the scope, where nothing of it
may get onto the wire and the log must say why, and then from outside, where it must get through: what
does not work anyway proves nothing about who stopped it.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import socket
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from tests.adversarial.actor import Actor
from tests.lab.daemon import COMMAND, Daemon
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.pace import PACE

PORT = 443
PATIENCE = 10.0  # seconds for a line of the log, or for a packet to arrive; a slow guest needs some
DAEMON_PATIENCE = 180.0  # seconds for a start, which compiles when nothing is in the cache; a guest is slow
SETTLING = 0.03  # seconds for a packet that must not arrive, beyond the time in which its sender was served

# What an attacker may be told though nobody stops a packet: no answer, none yet, or a closed port.
_UNSTOPPED = (errno.ETIMEDOUT, errno.EINPROGRESS, errno.ECONNREFUSED)

_AF_PACKET = 17
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
_SOL_SOCKET_RCVBUFFORCE = 33
_ETHERNET_HEADER = 14


@dataclass(frozen=True)
class Target:
    """An address of the attacker's registry, in both families."""

    v4: str
    v6: str

    @property
    def mapped(self) -> str:
        """The IPv4 address in its IPv4-mapped form."""
        return f"::ffff:{self.v4}"


Attack = Callable[[Actor, Target], object]

# RFC 5737 and RFC 3849: nobody has these.
_targets: Iterator[Target] = (
    Target(f"203.0.113.{number}", f"2001:db8::{number:x}") for number in itertools.count(1)
)


class ScopedDaemon(Daemon):
    """ram-ebpf on other control groups than the client's, or on scopes as on the command line."""

    def __init__(
        self,
        lab: Lab,
        policy: str,
        options: Sequence[str] = (),
        scopes: Sequence[str | Path] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        super().__init__(lab, policy, options, command, patience=DAEMON_PATIENCE)
        if scopes is not None:
            position = self._argv.index("--scope")
            self._argv[position : position + 2] = [
                word for scope in scopes for word in ("--scope", _scope_text(scope))
            ]

    def __enter__(self) -> ScopedDaemon:
        super().__enter__()
        return self

    def signal_only(self, number: int) -> None:
        """Sends a signal that does not end the daemon."""
        self._process.send_signal(number)

    def signal(self, number: int) -> int:
        """Sends a signal and returns the exit status, negative for the signal that ended the daemon."""
        self._process.send_signal(number)
        return self._process.wait(PATIENCE * 5)


def _scope_text(scope: str | Path) -> str:
    return str(scope) if scope == "host" or ":" in str(scope) else f"cgroup:{scope}"


@contextlib.contextmanager
def governed(
    lab: Lab, policy: str, *options: str, scopes: Sequence[str | Path] | None = None
) -> Iterator[Daemon]:
    """ram-ebpf on the lab's client, or on other cgroups.

    It is asked to end: killed, it would leave its enforcement behind.
    """
    with ScopedDaemon(lab, policy, options, scopes) as daemon:
        try:
            yield daemon
        finally:
            status = daemon.terminate()
        assert status == 0, daemon.said()


class Sniffer:
    """All packets that reach a node, its own left out."""

    def __init__(self, node: Node) -> None:
        self._actor = Actor(node)
        kind = _ETH_P_ALL.to_bytes(2, "big")
        self._socket = self._actor.socket(_AF_PACKET, socket.SOCK_RAW, int.from_bytes(kind, "little"))
        self._socket.setsockopt(socket.SOL_SOCKET, _SOL_SOCKET_RCVBUFFORCE, 8 << 20)

    def packets(self) -> list[bytes]:
        """The IP packets since the last call."""
        return [
            data[_ETHERNET_HEADER:]
            for data, kind in self._socket.drain()
            if kind != _PACKET_OUTGOING and data[12:14] in (b"\x08\x00", b"\x86\xdd")
        ]

    def close(self) -> None:
        """Stops watching."""
        self._actor.__exit__(None, None, None)


class Field:
    """A lab with ram-ebpf on its client and attackers on both sides of the scope's border."""

    def __init__(self, lab: Lab, daemon: Daemon) -> None:
        self.lab = lab
        self.daemon = daemon
        self.inside = Actor(lab.client, lab.client_cgroup, contained=True)
        self.outside = Actor(lab.client)
        self._sniffers = [Sniffer(lab.blocked.node), Sniffer(lab.allowed.node)]
        # Takes what is sent to the allowed address by UDP, where a refusal would come back as an error.
        self._sink = Actor(lab.allowed.node)
        sink = self._sink.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sink.bind(("::", PORT))

    def __enter__(self) -> Field:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for sniffer in self._sniffers:
            sniffer.close()
        for actor in (self.inside, self.outside, self._sink):
            actor.__exit__(None, None, None)

    def target(self) -> Target:
        """A target that nobody has had to do with before."""
        target = next(_targets)
        self.lab.blocked.node.add_addresses(target.v4, target.v6)
        return target

    def repels(
        self,
        attack: Attack,
        *reasons: str,
        told: str | None = None,
        error: int | Container[int | None] | None = errno.EPERM,
        actor: Actor | None = None,
    ) -> dict[str, Any]:
        """Makes the attack on a new target from inside, or by `actor`, and then from outside.

        From inside it must end with `error`, or one of them, where None is no error. It must put no packet
        onto the wire, and have a reason logged, for the address `told` or one of the target's. Returns the
        line of the log.
        """
        target = self.target()
        start = len(self.daemon.lines())
        attacker = actor or self.inside
        failure = attempt(attacker, attack, target)
        line = self.reason(start, reasons, told or target)
        assert not self.arrived(target), "a packet got out of the scope"
        number = None if failure is None else failure.errno
        assert number in (error if isinstance(error, Container) else (error,)), failure or "told of no error"
        attacker.reset()
        failure = attempt(self.outside, attack, target)
        assert failure is None or failure.errno in _UNSTOPPED, failure
        assert self.arrives(target), "the attack does not work even where nothing stops it"
        self.outside.reset()
        return line

    def arrived(self, target: Target) -> list[bytes]:
        """The packets for the target on the wire until now and a moment longer."""
        time.sleep(SETTLING)
        return self._packets(target)

    def arrives(self, target: Target) -> bool:
        """Whether a packet for the target comes soon."""
        return eventually(lambda: bool(self._packets(target)))

    def reason(self, start: int, reasons: tuple[str, ...], about: Target | str) -> dict[str, Any]:
        """The first line from number `start` on with one of the reasons and the address; fails without."""
        addresses = (about,) if isinstance(about, str) else (about.v4, about.v6)
        return self.line(
            start,
            lambda line: line.get("reason") in reasons and line.get("address") in addresses,
            f"{' or '.join(reasons)} for {about}",
        )

    def line(self, start: int, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """The first line from number `start` on that is wanted; fails without."""
        return wait_line(self.daemon, start, wanted, what)

    def _packets(self, target: Target) -> list[bytes]:
        # Anywhere in the headers: with a source route the target is not where destinations stand.
        needles = [ipaddress.ip_address(text).packed for text in (target.v4, target.v6)]
        return [
            packet
            for sniffer in self._sniffers
            for packet in sniffer.packets()
            if any(needle in packet[:120] for needle in needles)
        ]


def attempt(actor: Actor, attack: Attack, target: Target) -> OSError | None:
    """Makes an attack; the error that ended it, if one did."""
    try:
        attack(actor, target)
    except OSError as error:
        return error
    return None


def eventually(condition: Callable[[], bool], patience: float = PATIENCE) -> bool:
    """Whether the condition holds soon."""
    deadline = time.monotonic() + patience * PACE
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def wait_line(
    daemon: Daemon,
    start: int,
    wanted: Callable[[dict[str, Any]], bool],
    what: str,
    patience: float = PATIENCE,
) -> dict[str, Any]:
    """The first line of the log from number `start` on that is wanted; fails when none comes."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        found[:] = [line for line in daemon.lines()[start:] if wanted(line)]
        return bool(found)

    if not eventually(look, patience):
        pytest.fail(f"the log lacks {what}: {daemon.lines()[start:]}", pytrace=False)
    return found[0]


def wait_denied(daemon: Daemon, start: int, address: str, port: int = PORT) -> dict[str, Any]:
    """The first refusal of that end from line number `start` on; fails when none comes."""

    def wanted(line: dict[str, Any]) -> bool:
        return line.get("verdict") == "deny" and (line["address"], line["port"]) == (address, port)

    return wait_line(daemon, start, wanted, f"a refusal of {address} port {port}")


def tcp_connect(actor: Actor, address: str, port: int = PORT) -> None:
    """Opens a connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    actor.socket(family, socket.SOCK_STREAM).connect((address, port))

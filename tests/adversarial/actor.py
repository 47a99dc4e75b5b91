"""Sockets in another place: in a namespace and a control group of the lab, at the end of an agent's pipe."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.adversarial.agent import decode, encode
from tests.lab.node import Node

_ROOT = Path(__file__).parents[2]


class RemoteSocket:
    """A socket of an actor. Methods are those of socket.socket and raise the same errors."""

    def __init__(self, actor: Actor, number: int) -> None:
        self._actor = actor
        self.number = number

    def connect(self, address: tuple[Any, ...]) -> None:
        """As for a socket."""
        self._method("connect", address)

    def disconnect(self) -> None:
        """connect(2) with AF_UNSPEC."""
        self._actor.call("disconnect", self.number)

    def bind(self, address: tuple[Any, ...]) -> None:
        """As for a socket."""
        self._method("bind", address)

    def listen(self) -> None:
        """As for a socket."""
        self._method("listen")

    def accept(self) -> RemoteSocket:
        """The socket of the next connection."""
        return RemoteSocket(self._actor, self._method("accept")[0])

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        """As for a socket."""
        self._method("setsockopt", level, option, value)

    def settimeout(self, seconds: float) -> None:
        """As for a socket."""
        self._method("settimeout", seconds)

    def send(self, data: bytes) -> None:
        """As for a socket."""
        self._method("send", data)

    def sendto(self, data: bytes, address: tuple[Any, ...], flags: int = 0) -> None:
        """As for a socket."""
        self._method("sendto", data, flags, address)

    def recv(self) -> bytes:
        """Up to 64 KiB."""
        data: bytes = self._method("recv", 65535)
        return data

    def port(self) -> int:
        """The local port."""
        return int(self._method("getsockname")[1])

    def peer(self) -> tuple[str, int]:
        """The other end's address and port."""
        address, port = self._method("getpeername")[:2]
        return str(address), int(port)

    def drain(self) -> list[tuple[bytes, int]]:
        """All datagrams that wait, each with its packet's type."""
        return [(data, kind) for data, kind in self._actor.call("drain", self.number)]

    def close(self) -> None:
        """As for a socket."""
        self._method("close")

    def _method(self, name: str, *arguments: Any) -> Any:
        return self._actor.call("method", self.number, name, *arguments)


class Actor:
    """A process of a node that opens sockets as it is told. Without `cgroup` it is beside the scope.

    `contained`: it is in a PID namespace of its own, as what runs in a container is. Root on the host itself
    is no attacker: it may end the enforcement.
    """

    def __init__(
        self,
        node: Node,
        cgroup: Path | None = None,
        hosts: Mapping[str, str] | None = None,
        *,
        contained: bool = False,
    ) -> None:
        # Not Client's own idea of a default: an actor that is to be governed says so.
        argv = [sys.executable, "-m", "tests.adversarial.agent", *(["--contained"] if contained else [])]
        pipe = subprocess.PIPE
        self._node = node
        self._process = node.popen(argv, cgroup=cgroup, hosts=hosts, cwd=_ROOT, stdin=pipe, stdout=pipe)
        self.pid = int(self.call("pid"))

    def __enter__(self) -> Actor:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._node.stop(self._process)

    def socket(self, family: int, kind: int, protocol: int = 0) -> RemoteSocket:
        """socket(2)."""
        return RemoteSocket(self, self.call("open", int(family), int(kind), protocol))

    def resolve(self, name: str) -> list[str]:
        """The addresses that the C library finds there."""
        return list(self.call("resolve", name))

    def move(self, cgroup: Path) -> None:
        """Moves the process to another control group, and the one that waits for it outside a container."""
        self.call("move", str(cgroup))
        (cgroup / "cgroup.procs").write_text(str(self._process.pid), encoding="ascii")

    def reset(self) -> None:
        """Closes all sockets."""
        self.call("reset")

    def start(self, name: str, *arguments: Any) -> None:
        """Begins a call of agent.Agent; `finish` returns its result."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, encode(arguments)]) + "\n")
        self._process.stdin.flush()

    def has_finished(self) -> bool:
        """Whether `finish` would return at once."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def finish(self) -> Any:
        """Returns the result of the call that was begun, or raises its OSError."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the agent in {self._node.name} has ended")
        reply = json.loads(line)
        if "errno" in reply:
            raise OSError(reply["errno"], f"{os.strerror(reply['errno'])} ({reply['text']})")
        return decode(reply["value"])

    def call(self, name: str, *arguments: Any) -> Any:
        """Does a call of agent.Agent."""
        self.start(name, *arguments)
        return self.finish()

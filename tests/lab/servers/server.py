"""What all name servers of this package have in common."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.lab.node import Node

PORT = 53
_PATIENCE = 20.0


class Server:
    """A name server on one address of a node, beside the client's control group, in a `with` block."""

    def __init__(self, node: Node, address: str) -> None:
        self.node = node
        self.address = address
        self.directory = node.directory / f"{type(self).__name__.lower()}-{address.replace(':', '-')}"
        self.log_path = self.directory / "log"

    def prepare(self) -> tuple[list[str], Mapping[str, str]]:
        """Write the files that the server reads, and return its command line and environment."""
        raise NotImplementedError

    def is_ready(self, log: str) -> bool:
        """Whether the server answers by now, beyond that its port is open."""
        return True

    def __enter__(self) -> Server:
        self.start()
        try:
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def log(self) -> str:
        """What the server has said so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Start the server, without waiting for it."""
        self.directory.mkdir(exist_ok=True)
        argv, env = self.prepare()
        with self.log_path.open("w", encoding="utf-8") as log:
            self._process = self.node.popen(argv, env=env, stdout=log, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + _PATIENCE
        while not (self._is_open() and self.is_ready(self.log())):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                what = f"{type(self).__name__} on {self.address} of {self.node.name}"
                raise RuntimeError(f"{what} did not start: {self.log()[-2000:].strip()}")
            time.sleep(0.005)

    def stop(self) -> None:
        """End the server."""
        self.node.stop(self._process)

    def _is_open(self) -> bool:
        # By the address too: several servers share the client's port 53.
        return self.node.namespace.holds(self.pid) and all(
            f" {_in_table(self.address)}:{PORT:04X} " in self._table(table)
            for table in (("udp", "tcp") if "." in self.address else ("udp6", "tcp6"))
        )

    def _table(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/net/{name}").read_text(encoding="ascii")
        except OSError:
            return ""


def _in_table(address: str) -> str:
    """An address as /proc/net/udp has it: words of 32 bits in the machine's byte order."""
    packed = ipaddress.ip_address(address).packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)

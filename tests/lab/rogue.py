"""Runs the adversarial DNS server (udp_dns) in a node of the lab, for the time of a `with` block."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from . import topology
from .node import Node
from .pace import PACE

# The root of the project, where `python -m tests.lab…` and a script's imports find this package.
ROOT = Path(__file__).parents[2]


class RogueDns:
    """A server whose answers a function of a Python file makes, by default on the rogue's own address.

    The file may import this package: `from tests.lab.dns_replies import Reply, respond`.
    """

    def __init__(
        self,
        node: Node,
        script: Path,
        function: str = "answer",
        listen: str = topology.ROGUE_RESOLVER,
        port: int = 53,
    ) -> None:
        self.address = listen
        self.port = port
        self._node = node
        self._argv = [sys.executable, "-m", "tests.lab.udp_dns", "--listen", listen, "--port", str(port)]
        self._argv += ["--script", str(script.resolve()), "--function", function]
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()

    def __enter__(self) -> RogueDns:
        pipe = subprocess.PIPE
        self._process = self._node.popen(self._argv, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.wait("ready", timeout=60.0)  # a guest without hardware acceleration is slow
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        # The reader ends at the end of the pipe; closing the pipe under it would be a race.
        self._reader.join()
        self._node.stop(self._process)

    def send(self, wire: bytes, to: str, port: int, source: str | None = None) -> None:
        """Send a datagram that nobody has asked for, and wait until it is sent."""
        command = {"wire": wire.hex(), "to": [to, port], "source": source}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        self.wait("sent", where=lambda event: event["to"] == [to, port])

    def wait(
        self, event: str, where: Callable[[dict[str, Any]], bool] = lambda _: True, timeout: float = 15.0
    ) -> dict[str, Any]:
        """Return the next event of that sort that meets the condition; those before it are dropped.

        Events are ready, query, sent and error; an error of the script is raised.
        """
        deadline = time.monotonic() + timeout * PACE
        while True:
            try:
                found = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no event {event} of the rogue resolver in {timeout} s") from None
            if found["event"] == event and where(found):
                return found
            if found["event"] in ("error", "ended"):
                raise RuntimeError(f"the rogue resolver failed: {found['error']}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put({"event": "ended", "error": self._process.stderr.read()})

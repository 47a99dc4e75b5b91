"""ram-ebpf on the host of an engine of the lab: in its network, and where it finds no other engine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from tests.adversarial.field import ScopedDaemon

from . import cgroups
from .daemon import COMMAND
from .lab import Lab
from .node import Node


class Engine(Protocol):
    """dockerd or containerd, see docker.py and containerd.py."""

    @property
    def node(self) -> Node:
        """Its network."""

    @property
    def pid(self) -> int:
        """Some process of its namespaces."""

    @property
    def env(self) -> dict[str, str]:
        """By which its clients find it."""


class HostDaemon(ScopedDaemon):
    """ram-ebpf in the namespaces of an engine: of networks, as on a host, and of processes.

    It watches every engine that it finds, and the machine's own and those of other labs are not for it.
    """

    def __init__(self, lab: Lab, engine: Engine, policy: str, scopes: Sequence[Path | str]) -> None:
        """`scopes`: control groups, or scopes as on the command line."""
        self._services = lab.client.services
        command = [
            *("nsenter", f"--net={engine.node.namespace.path}", f"--pid=/proc/{engine.pid}/ns/pid", "--"),
            # Killed, nsenter would leave it behind.
            *("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount-proc", "--"),
            *("env", *(f"{key}={value}" for key, value in engine.env.items())),
            *COMMAND,
        ]
        super().__init__(lab, policy, ["--log-dns"], [s for s in scopes if isinstance(s, Path)], command)
        self._argv += [word for scope in scopes if isinstance(scope, str) for word in ("--scope", scope)]

    @property
    def pid(self) -> int:
        """The process of ram-ebpf: the child of the one that is known, which passes no signal on."""
        for pid in cgroups.members(self._services):
            if _parent(pid) == self._process.pid:
                return pid
        raise RuntimeError(f"ram-ebpf has ended: {self.said()}")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """ram-ebpf does nothing; what it has attached goes on."""
        pid = self.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            # nsenter stops together with its child.
            for stopped in (self._process.pid, pid):
                os.kill(stopped, signal.SIGCONT)

    def terminate(self, timeout: float = 10.0) -> int:
        """See Daemon."""
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        return self._process.wait(timeout)


@contextlib.contextmanager
def governed(lab: Lab, engine: Engine, policy: str, *scopes: Path | str) -> Iterator[HostDaemon]:
    """ram-ebpf on some scopes of an engine's host; it is asked to end."""
    daemon = HostDaemon(lab, engine, policy, scopes)
    with daemon:
        try:
            yield daemon
        finally:
            status = daemon.terminate()
        assert status == 0, daemon.said()


def _parent(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("PPid:"):
                return int(line.split()[1])
    return None

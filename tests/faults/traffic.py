"""A stream of connections in a lab while something fails, and what must be true of it in the end.

No attempt may have been wrongly allowed, by what the client was told and by what came to the target, and none
wrongly refused.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pyroute2 import IPRoute

from tests.adversarial.actor import Actor
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.network import INTERFACE
from tests.lab.node import Node

from .far_end import EXACT, FRESH, FRESH_NETWORK, UNLISTED
from .stream import Settings

RESOLVER = "10.77.0.59"
PORT = 8443
_ROOT = Path(__file__).parents[2]
_PATIENCE = 30.0
_KINDS = ("exact", "fresh", "refused")  # of attempts, that every stream has
_LOCAL_TABLE, _SCOPE_HOST = 255, 254  # include/uapi/linux/rtnetlink.h


class _Program:
    """One that tells what it has counted when it is asked."""

    def __init__(self, node: Node, words: list[str], cgroup: Path | None = None) -> None:
        pipe = subprocess.PIPE
        argv = [sys.executable, "-m", *words]
        self._node = node
        self._process = node.popen(argv, cgroup=cgroup, resolver=RESOLVER, cwd=_ROOT, stdin=pipe, stdout=pipe)
        try:
            self._read()
        except BaseException:
            self.kill()
            raise

    def ask(self) -> dict[str, Any]:
        """What it has counted so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> dict[str, Any]:
        """Has it end, and returns its last words."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._read()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.kill()
        self._node.stop(self._process)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _PATIENCE)[0]:
            raise TimeoutError(f"nothing is heard of {self._process.args!r}")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args!r} has ended")
        found: dict[str, Any] = json.loads(line)
        return found


class FarEnds:
    """The resolver, the registry and the target, in their places in the lab."""

    def __init__(self, lab: Lab) -> None:
        tls = lab.directory / "tls"
        lab.dns.node.add_addresses(RESOLVER)
        _route(
            lab.allowed.node, dst=FRESH_NETWORK, type="local", scope=_SCOPE_HOST, oif="lo", table=_LOCAL_TABLE
        )
        _route(lab.client, dst=FRESH_NETWORK, gateway=topology.ALLOWED)
        self._lab = lab
        self._names: _Program | None = None
        self.start_resolver()
        self._registry = self._run(
            lab.allowed.node, "registry", str(PORT), str(tls / "server.crt"), str(tls / "server.key")
        )
        self._target = self._run(lab.blocked.node, "target", str(PORT))
        self._reach_target()
        self._before = self.arrived()

    @staticmethod
    def _run(node: Node, *words: str) -> _Program:
        return _Program(node, ["tests.faults.far_end", *words])

    def _reach_target(self) -> None:
        """What never gets there proves nothing, unless it would otherwise."""
        with Actor(self._lab.client) as outside:
            for family, address in (
                (socket.AF_INET, topology.BLOCKED),
                (socket.AF_INET6, topology.BLOCKED_V6),
            ):
                outside.socket(family, socket.SOCK_STREAM).connect((address, PORT))
                outside.socket(family, socket.SOCK_DGRAM).sendto(b"x", (address, PORT))
        deadline = time.monotonic() + _PATIENCE
        while True:  # what the kernel has accepted, the program counts when it is its turn
            found = self._target.ask()
            if (found.get("connections"), found.get("datagrams")) == (2, 2):
                return
            assert time.monotonic() < deadline, found
            time.sleep(0.05)

    def arrived(self) -> dict[str, int]:
        """All that has come to the target, and to the registry under a name that is not allowed."""
        misnamed = self._registry.ask().get(f"hello {UNLISTED}", 0)
        return {**self._target.ask(), "misnamed": misnamed}

    def news(self) -> dict[str, int]:
        """The same since the last call."""
        now = self.arrived()
        before, self._before = self._before, now
        return {
            name: count - before.get(name, 0) for name, count in now.items() if count > before.get(name, 0)
        }

    def queries(self) -> int:
        """How many the resolver has had."""
        assert self._names is not None
        return int(self._names.ask().get("queries", 0))

    def start_resolver(self) -> None:
        """Starts it (again)."""
        self._names = self._run(self._lab.dns.node, "names", RESOLVER)

    def stop_resolver(self) -> None:
        """Nobody answers any more; the port is closed."""
        if self._names is not None:
            self._names.kill()
            self._names = None

    def close(self) -> None:
        """Ends all of it."""
        self.stop_resolver()
        self._registry.kill()
        self._target.kill()


@contextlib.contextmanager
def far_ends(lab: Lab) -> Iterator[FarEnds]:
    """The same for the time of a `with` block."""
    ends = FarEnds(lab)
    try:
        yield ends
    finally:
        ends.close()


@dataclass(frozen=True)
class Report:
    """What came of a stream; see stream.Tally."""

    done: Mapping[str, int]
    wrongly_allowed: list[str]
    wrongly_refused: list[tuple[float, str]]
    failures: int
    slowest: float
    arrived: Mapping[str, int]

    @property
    def allowed(self) -> int:
        """How many connections got their answer."""
        return sum(self.done.get(kind, 0) for kind in ("exact", "fresh", "kept"))

    @property
    def refused(self) -> int:
        """How many attempts were refused."""
        return sum(self.done.get(kind, 0) for kind in ("refused", "answered", "misnamed"))

    def assert_enforced(self, least: int = 1) -> None:
        """None was wrongly allowed, of at least so many attempts."""
        assert self.wrongly_allowed == [], self
        assert self.arrived == {}, self
        assert self.refused >= least, self

    def assert_right(self, least: int = 10) -> None:
        """Nor was one wrongly refused, of at least so many of each kind."""
        self.assert_enforced(least)
        assert self.failures == 0, self
        for kind in _KINDS:
            assert self.done.get(kind, 0) >= least, self


class Traffic:
    """The stream, from one place in the lab, for the time of a `with` block."""

    def __init__(
        self, lab: Lab, ends: FarEnds, cgroup: Path | None, settings: Settings | None = None
    ) -> None:
        """`cgroup`: of the client's; None: none that is governed."""
        self._lab, self._ends, self._cgroup = lab, ends, cgroup
        self._settings = settings or Settings()

    def __enter__(self) -> Traffic:
        self._ends.news()
        words = ["tests.faults.stream", json.dumps(asdict(self._settings))]
        self._program = _Program(self._lab.client, words, self._cgroup)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._program.kill()

    def so_far(self) -> Report:
        """What came of it until now. What has arrived is only said once."""
        return Report(**self._program.ask(), arrived=self._ends.news())

    def finish(self, least: int = 10) -> Report:
        """Ends it, when there were so many attempts of each kind, or one was wrong. The daemon must still be
        there, or what is governed still governed."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            found = self._program.ask()
            if found["failures"] or all(found["done"].get(kind, 0) >= least for kind in _KINDS):
                break
            time.sleep(0.1)
        return Report(**self._program.end(), arrived=self._ends.news())


def _route(node: Node, **words: Any) -> None:
    """Once: a lab's namespaces outlive a test."""
    with IPRoute(netns=node.namespace.name) as netlink:
        device = words.pop("oif", INTERFACE)
        (words["oif"],) = netlink.link_lookup(ifname=device)
        netlink.route("replace", **words)


__all__ = ["EXACT", "FRESH", "PORT", "RESOLVER", "FarEnds", "Report", "Traffic", "far_ends"]

"""The three designs in one lab: nothing, ram-ebpf, and dnsmasq that fills an nftables set.

One client takes turns: beside the governed control group, within it, or with the rules of nftables in force.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.lab import race
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.race import Race
from tests.lab.servers.server import Server

NONE, OURS, NFTSET = "none", "ours", "nftset"
# Ours with the daemon stopped: what the programs cost by themselves, without anybody who reads of it.
KERNEL = "kernel part"

FORWARDER = "127.0.0.1"
HOLE = 5001  # an open port that nobody reads from

POLICY = f"""\
version: 1
registries:
  - host: "*.{race.DOMAIN}"
    ports: [{race.PORT}, {HOLE}]
    private: true
refusals:
  responder: off
resolvers: [{race.RESOLVER}]
# What is sent here says no name.
connections: {{ read_names: false }}
"""

_TABLE = "inet fw"
_RULES = f"""\
table {_TABLE} {{
    set allowed {{
        type ipv4_addr
    }}
    chain output {{
        type filter hook output priority filter; policy drop;
        oif lo accept
        ip daddr {race.RESOLVER} udp dport 53 accept
        ip daddr @allowed accept
    }}
}}
"""
_ROOT = Path(__file__).parents[1]
_PATIENCE = 60.0  # seconds for a start, which compiles when nothing is in the cache
_REST = 0.12  # seconds without work of the daemon, after which it has caught up


class Forwarder(Server):
    """dnsmasq on the client's own host: the set that it fills is that of its network namespace."""

    def prepare(self) -> tuple[list[str], Mapping[str, str]]:
        """See Server."""
        lines = [
            "user=root",
            "group=root",
            "pid-file=",
            "no-resolv",
            "no-hosts",
            "bind-interfaces",
            f"listen-address={self.address}",
            f"server={race.RESOLVER}",
            f"nftset=/{race.DOMAIN}/4#{_TABLE.replace(' ', '#')}#allowed",
            "log-facility=-",
        ]
        path = self.directory / "dnsmasq.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return ["dnsmasq", "--keep-in-foreground", f"--conf-file={path}"], {}


class Designs:
    """The lab with everything running, for the time of a `with` block."""

    def __enter__(self) -> Designs:
        with contextlib.ExitStack() as stack:
            # Not below /run, which may forbid running the programs that are built there.
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ram-ebpf-bench-")))
            self.lab = stack.enter_context(Lab())
            self.race = stack.enter_context(Race(self.lab, self.directory))
            stack.enter_context(Forwarder(self.lab.client, FORWARDER))
            self._daemon = stack.enter_context(_daemon(self.lab))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def node(self) -> Node:
        """Where the client runs."""
        return self.lab.client

    def cgroup(self, design: str) -> Path:
        """Where the client runs under a design: only ours is about control groups."""
        return self.lab.client_cgroup if design in (OURS, KERNEL) else self.lab.client.services

    def resolver(self, design: str) -> str:
        """Whom the client asks."""
        return FORWARDER if design == NFTSET else race.RESOLVER

    @contextlib.contextmanager
    def turn(self, design: str, allowed: Sequence[str] = ()) -> Iterator[None]:
        """A design's turn; `allowed` are addresses that nftables is to let pass from the start.

        Afterwards the daemon is waited for: what it has not read yet must not slow down whoever comes next.
        """
        if design == NFTSET:
            with self._nftables(allowed):
                yield
            return
        if design == KERNEL:
            self._daemon.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._daemon.send_signal(signal.SIGCONT)
        if design in (OURS, KERNEL):
            self._settle()

    @contextlib.contextmanager
    def _nftables(self, allowed: Sequence[str]) -> Iterator[None]:
        rules = self.directory / "rules.nft"
        rules.write_text(
            _RULES + (f"add element {_TABLE} allowed {{ {', '.join(allowed)} }}\n" if allowed else ""),
            encoding="utf-8",
        )
        services = self.lab.client.services
        self.node.run(["nft", "-f", str(rules)], cgroup=services).check()
        try:
            yield
        finally:
            self.node.run(["nft", "delete", "table", *_TABLE.split()], cgroup=services).check()

    def _settle(self) -> None:
        before = -1
        while (now := _cpu_ticks(self._daemon.pid)) != before:
            before = now
            time.sleep(_REST)


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@contextlib.contextmanager
def _daemon(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    """ram-ebpf on the client's control group. Its log goes to a file, as to a journal: nobody parses it."""
    policy, log = lab.directory / "bench.yaml", lab.directory / "bench.log"
    policy.write_text(POLICY, encoding="utf-8")
    argv = [sys.executable, "-m", "ram_ebpf", "run", "--policy", str(policy)]
    argv += ["--scope", f"cgroup:{lab.client_cgroup}", "--log-format", "json"]
    with log.open("w", encoding="utf-8") as stream:
        process = lab.client.popen(argv, cwd=_ROOT, stdout=stream, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + _PATIENCE
    while '"event": "ready"' not in log.read_text(encoding="utf-8"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the daemon did not start: {log.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(0.02)
    try:
        yield process
    finally:
        # Asked to end: killed, it would leave its enforcement behind.
        process.terminate()
        process.wait(10)
        last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
        assert last["event"] == "stopped", last

"""What reading the name on the wire costs: `python -m benchmarks.wire_names [--quick]`, as root.

A client in a governed cgroup and a server that is not, on a loopback interface of their own. Connections that
send a ClientHello and are closed, and one connection that sends much, by turns with and without `read_names`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address

from pyroute2 import IPRoute

from benchmarks import report
from benchmarks.measure import Rounds, middle, ratios, take_turns
from benchmarks.report import Figure, Part
from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.settings import Settings
from tests.dataplane.beginnings import DATA, REGISTRIES, THERE, hello
from tests.dataplane.support import Bench, rules_of
from tests.dataplane.wire import governed, inside

_ROUNDS, _ROUNDS_QUICK = 9, 2
_CONNECTIONS = 400
_BYTES = 1 << 29
_CHUNK = bytes(1 << 16)


def _serve(listening: socket.socket) -> None:
    with suppress(OSError):
        while True:
            item, _ = listening.accept()
            with item:
                while item.recv(1 << 20):
                    pass


def _connections(sent: bytes) -> float:
    """A second."""
    begun = time.monotonic()
    for _ in range(_CONNECTIONS):
        with socket.create_connection((THERE, 443)) as item:
            item.sendall(sent)
    return _CONNECTIONS / (time.monotonic() - begun)


def _throughput(sent: bytes) -> float:
    """Bytes a second, in units of 10^9."""
    with socket.create_connection((THERE, 443)) as item:
        item.sendall(sent + DATA)
        begun = time.monotonic()
        for _ in range(_BYTES // len(_CHUNK)):
            item.sendall(_CHUNK)
        return _BYTES / (time.monotonic() - begun) / 1e9


WITHOUT, WITH = "without", "with"
_WAYS: dict[str, tuple[Callable[[bytes], float], str]] = {
    "connections a second, each with a ClientHello": (_connections, "/s"),
    "throughput of one connection": (_throughput, "GB/s"),
}


def measure(quick: bool) -> Part:
    """Both figures are better the greater they are, so a ratio below 1 is what reading costs."""
    bench, sent = Bench(rules_of(REGISTRIES)), hello("registry.test")
    rounds = _ROUNDS_QUICK if quick else _ROUNDS

    def turn(read: bool, what: Callable[[bytes], float]) -> float:
        with bench.configured(Settings(read_names=read)):
            return what(sent)

    taken: dict[str, Rounds] = {}
    try:
        with governed(bench) as wire, IPRoute() as netlink:
            netlink.addr("add", index=1, address=THERE, prefixlen=32)
            ports = bench.plane.tables.rules.port_lists().index((443, 5000))
            expires = clock.now_ns() + 3600 * clock.NANOSECONDS
            opening = abi.Opening(expires, bench.rule_of("registry.test"), 0)
            wire.scope.maps["learned"][abi.opening_key(ip_address(THERE), ports)] = bytes(opening)
            with socket.create_server((THERE, 443), backlog=512) as listening:
                threading.Thread(target=_serve, args=(listening,), daemon=True).start()
                with inside(wire.cgroup):
                    for title, (what, _) in _WAYS.items():
                        turns = {WITHOUT: partial(turn, False, what), WITH: partial(turn, True, what)}
                        taken[title] = take_turns(turns, rounds)
                listening.shutdown(socket.SHUT_RDWR)
    finally:
        bench.plane.close()
    part = Part("wire_names: what reading the name on the wire costs, in a cgroup")
    for title, (_, unit) in _WAYS.items():
        name = f"{title}, {WITH} / {WITHOUT}"
        part.figures.append(Figure(name, ratios(taken[title], WITH, WITHOUT), middle(taken[title]), unit))
    part.details = {"rounds": taken}
    return part


if __name__ == "__main__":
    raise SystemExit(report.run({"wire_names": measure}))

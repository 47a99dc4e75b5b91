"""What reading the name on the wire costs: `python -m benchmarks.wire_names`, as root.

A client in a governed cgroup and a server that is not, on a loopback interface of their own. Connections that
send a ClientHello and are closed, and one connection that sends much, by turns with and without `read_names`.
"""

from __future__ import annotations

import socket
import statistics
import threading
import time
from contextlib import suppress
from ipaddress import ip_address

from pyroute2 import IPRoute

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.settings import Settings
from tests.dataplane.beginnings import REGISTRIES, THERE, hello
from tests.dataplane.support import Bench, rules_of
from tests.dataplane.wire import governed, inside

_ROUNDS = 7
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
        item.sendall(sent)
        begun = time.monotonic()
        for _ in range(_BYTES // len(_CHUNK)):
            item.sendall(_CHUNK)
        return _BYTES / (time.monotonic() - begun) / 1e9


def main() -> None:
    """Prints the medians of all rounds, and their ratio."""
    bench, sent = Bench(rules_of(REGISTRIES)), hello("registry.test")
    found: dict[tuple[str, bool], list[float]] = {}
    with governed(bench) as wire, IPRoute() as netlink:
        netlink.addr("add", index=1, address=THERE, prefixlen=32)
        ports = bench.plane.tables.rules.port_lists().index((443, 5000))
        expires = clock.now_ns() + 3600 * clock.NANOSECONDS
        opening = abi.Opening(expires, bench.rule_of("registry.test"), 0)
        wire.scope.maps["learned"][abi.opening_key(ip_address(THERE), ports)] = bytes(opening)
        with socket.create_server((THERE, 443), backlog=512) as listening:
            threading.Thread(target=_serve, args=(listening,), daemon=True).start()
            with inside(wire.cgroup):
                for _ in range(_ROUNDS):
                    for read in (False, True):
                        with bench.configured(Settings(read_names=read)):
                            found.setdefault(("connections/s", read), []).append(_connections(sent))
                            found.setdefault(("GB/s", read), []).append(_throughput(sent))
            listening.shutdown(socket.SHUT_RDWR)
    bench.plane.close()
    for what in ("connections/s", "GB/s"):
        without, with_names = (statistics.median(found[what, read]) for read in (False, True))
        print(f"{what}: {without:.2f} without, {with_names:.2f} with, ratio {with_names / without:.3f}")


if __name__ == "__main__":
    main()

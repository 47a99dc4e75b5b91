"""What many rules cost, beside few: loading, kernel memory, and one DNS query.

    python -m benchmarks.rules_scale [--few 100] [--many 100000]

Both planes are loaded in the same process and the queries are run in turn, so that the ratio holds on a
machine whose speed drifts. Needs root.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.plane import Plane, Settings, TrustedResolver
from ram_ebpf.policy.names import HostPattern
from ram_ebpf.policy.rules import NameRule, RuleSet

_RESOLVER = "10.0.0.53"
_ROUNDS = 15
_REPEAT = 20_000


def rules(count: int) -> RuleSet:
    """Names as an organisation has them: half exact, half wildcards, in a thousand domains."""
    made = []
    for number in range(1, count + 1):
        prefix = "*." if number % 2 else ""
        pattern = HostPattern.parse(f"{prefix}team{number}.site{number % 1000}.registry.example.com")
        made.append(NameRule(pattern, (443,), "benchmark", False, False, number))
    return RuleSet(tuple(made), ())


def query(name: str) -> bytes:
    """A DNS query in an Ethernet frame."""
    packet = Ether() / IP(src="10.0.0.2", dst=_RESOLVER) / UDP(sport=4000, dport=53)
    return bytes(packet / DNS(rd=1, qd=DNSQR(qname=name)))


@dataclass
class Loaded:
    """One plane and what it cost."""

    plane: Plane
    seconds: float
    memory: dict[str, int]


def load(count: int) -> Loaded:
    """Loads a plane; seconds without the compiler and the making of the rules themselves."""
    made = rules(count)
    started = time.perf_counter()
    plane = Plane(made, Settings(), [TrustedResolver(ip_address(_RESOLVER))])
    seconds = time.perf_counter() - started
    memory = {name: _kernel_memory(item.fd) for name, item in plane.maps.items() if name in _BY_POLICY}
    return Loaded(plane, seconds, memory)


_BY_POLICY = ("names", "rules", "automaton", "ranges")


def _kernel_memory(fd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines():
        if line.startswith("memlock:"):
            return int(line.split()[1])
    return 0


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", type=int, default=100)
    parser.add_argument("--many", type=int, default=100_000)
    arguments = parser.parse_args()
    load(1).plane.close()  # compiles, if that is still to be done
    few, many = load(arguments.few), load(arguments.many)
    packet = query("team42.site42.registry.example.com")
    pairs = []
    for _ in range(_ROUNDS):
        one, other = (
            syscall.program_test_run(item.plane.programs.fds["ram_egress"], packet, _REPEAT).duration_ns
            for item in (few, many)
        )
        pairs.append((one, other))
    report = {
        "kernel": platform.release(),
        "rules": [arguments.few, arguments.many],
        "load_seconds": [round(few.seconds, 3), round(many.seconds, 3)],
        "map_bytes": [few.memory, many.memory],
        "query_ns_median": [statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs)],
        "query_ratio_median": round(statistics.median(p[1] / p[0] for p in pairs), 3),
    }
    print(json.dumps(report, indent=2))
    few.plane.close()
    many.plane.close()


if __name__ == "__main__":
    main()

"""What many rules cost, beside few: loading, kernel memory, and one lookup.

    python -m benchmarks.rules_scale [--quick]

Half of the rules are exact names, half wildcards, in a thousand domains. All planes are loaded at once, and
names are looked up in turn. "One name" asks for the same name over and over; "any name" for another one each
time, so that what it needs of a large policy is not in the processor's caches.
"""

from __future__ import annotations

import ipaddress
import itertools
import random
import re
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from benchmarks import report
from benchmarks.measure import Estimate, Rounds, estimate, middle, ratios, take_turns
from benchmarks.report import Aim, Figure, Part
from ram_ebpf.collection import building_for_good
from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import compile_rules

SIZES = (100, 1_000, 10_000, 100_000)
_AIMED_AT = SIZES[-1]  # a quick run does without it, and so without a verdict

_AIM_LOOKUP = 1.2  # at 100 000 rules, with 100 as 1
_AIM_SECONDS = 1.0
_AIM_MEGABYTES = 25.0

_RESOLVER = "10.0.0.53"
_ROUNDS, _ROUNDS_QUICK = 25, 3
_REPEAT = 10_000
_ANY = 400  # names a round
_LOADS, _LOADS_QUICK = 3, 1

_STEPS = ("parse", "compile", "fill", "load")


def _host(number: int) -> str:
    # All names have the same length, as that is what a lookup's time depends on most.
    return f"team{number:06}.site{number % 1000:03}.registry.example.com"


def policy_text(count: int) -> str:
    """Names as an organisation has them."""
    hosts = (f'"*.{_host(number)}"' if number % 2 else _host(number) for number in range(count))
    return "version: 1\nregistries:\n" + "".join(f"  - host: {host}\n" for host in hosts)


def query(number: int) -> bytes:
    """A DNS query that rule `number` allows, in an Ethernet frame."""
    name = f"www.{_host(number)}" if number % 2 else _host(number)
    # Both hardware addresses, or scapy would ask the network for them.
    ether = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    packet = ether / IP(src="10.0.0.2", dst=_RESOLVER) / UDP(sport=4000, dport=53)
    return bytes(packet / DNS(rd=1, qd=DNSQR(qname=name)))


@dataclass
class Loaded:
    """One plane with one scope, and the seconds that each step took."""

    plane: Plane
    egress: int
    seconds: dict[str, float]
    bytes_by_map: dict[str, int]


def load(count: int) -> Loaded:
    """From the text of a policy to programs that are ready to be attached.

    The steps: parse the text, compile it to rules, fill the maps, load the programs.
    """
    text = policy_text(count).encode()
    catalogue = load_catalogue()
    marks = [time.perf_counter()]
    with building_for_good():  # as the daemon does
        policy = parse_policy(text, "policy.yaml")
        marks.append(time.perf_counter())
        rules = compile_rules(policy, catalogue)
        marks.append(time.perf_counter())
        plane = Plane(rules, Settings(), [TrustedResolver(ipaddress.ip_address(_RESOLVER))])
        marks.append(time.perf_counter())
        scope = plane.open_scope()
        marks.append(time.perf_counter())
    parse, compiled, start, scoped = (after - before for before, after in itertools.pairwise(marks))
    loading = plane.views[0].load_seconds
    seconds = dict(zip(_STEPS, (parse, compiled, start - loading, loading + scoped), strict=True))
    maps = {**plane.maps, **{f"{name} of the scope": item for name, item in scope.maps.maps.items()}}
    memory = {name: kernel_memory(item.fd) for name, item in maps.items()}
    return Loaded(plane, scope.programs.fds["out"], seconds, memory)


def kernel_memory(fd: int) -> int:
    """Bytes of one map, as the kernel accounts them."""
    text = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    found = re.search(r"^memlock:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def _one_name(loaded: Loaded) -> float:
    return syscall.program_test_run(loaded.egress, query(42), _REPEAT).duration_ns


def _any_name(loaded: Loaded, packets: Iterable[bytes]) -> float:
    return statistics.median(
        syscall.program_test_run(loaded.egress, packet).duration_ns
        for packet in itertools.islice(packets, _ANY)
    )


def _lookups(planes: dict[int, Loaded], rounds: int) -> tuple[list[Figure], dict[str, Rounds]]:
    pick = random.Random(1)
    orders = {size: itertools.cycle(_packets(size, pick)) for size in planes}
    ways: dict[str, Callable[[int], float]] = {
        "any name": lambda size: _any_name(planes[size], orders[size]),
        "one name": lambda size: _one_name(planes[size]),
    }
    figures: list[Figure] = []
    details: dict[str, Rounds] = {}
    for title, way in ways.items():
        taken = details[title] = take_turns({str(size): partial(way, size) for size in planes}, rounds)
        ratio = _many_over_few(taken)
        aim = Aim(_AIM_LOOKUP, ratio) if _AIMED_AT in planes else None
        figures.append(Figure(f"lookup of {title}, {_which(taken)}", ratio, middle(taken), "ns", aim))
    return figures, details


def _many_over_few(taken: Rounds) -> Estimate:
    return ratios(taken, list(taken[0])[-1], next(iter(taken[0])))


def _which(taken: Rounds) -> str:
    return f"{list(taken[0])[-1]} / {next(iter(taken[0]))} rules"


def _packets(size: int, pick: random.Random) -> list[bytes]:
    """Queries for rules that are chosen at random: all of them where there are few."""
    most = 5000
    return [query(number) for number in pick.sample(range(size), min(size, most))]


def measure(quick: bool) -> Part:
    """Lookups first, then loading."""
    load(1).plane.close()  # compiles, if that is still to be done
    seconds: list[dict[str, dict[str, float]]] = []
    planes: dict[int, Loaded] = {}
    sizes = SIZES[:2] if quick else SIZES
    for _ in range(_LOADS_QUICK if quick else _LOADS):
        for loaded in planes.values():
            loaded.plane.close()
        planes = {size: load(size) for size in sizes}
        seconds.append({str(size): loaded.seconds for size, loaded in planes.items()})
    try:
        figures, details = _lookups(planes, _ROUNDS_QUICK if quick else _ROUNDS)
        memory = {str(size): loaded.bytes_by_map for size, loaded in planes.items()}
    finally:
        for loaded in planes.values():
            loaded.plane.close()
    part = Part("rules: what many cost, beside few", figures)
    part.figures += _loading(seconds, memory)
    part.details = {"lookup_ns": details, "seconds": seconds, "bytes_by_map": memory}
    return part


def _loading(seconds: list[dict[str, dict[str, float]]], memory: dict[str, dict[str, int]]) -> list[Figure]:
    aimed = str(_AIMED_AT) in memory
    figures = []
    for steps, title in (
        (("fill", "load"), "rules into the kernel"),
        (_STEPS, "policy file into the kernel"),
        *(((step,), f"of that, {step}") for step in _STEPS),
    ):
        taken = [
            {size: sum(of_step[step] for step in steps) for size, of_step in one.items()} for one in seconds
        ]
        aim = Aim(_AIM_SECONDS, _of_many(taken)) if aimed and len(steps) > 1 else None
        name = f"{title}, {_which(taken)}"
        figures.append(Figure(name, _many_over_few(taken), middle(taken), "s", aim, " s"))
    megabytes = [{size: sum(maps.values()) / 1e6 for size, maps in memory.items()}]
    aim = Aim(_AIM_MEGABYTES, _of_many(megabytes)) if aimed else None
    name = f"kernel memory of the maps, one scope, {_which(megabytes)}"
    figures.append(Figure(name, _many_over_few(megabytes), megabytes[0], "MB", aim, " MB"))
    return figures


def _of_many(taken: Rounds) -> Estimate:
    return estimate(one[str(_AIMED_AT)] for one in taken)


if __name__ == "__main__":
    raise SystemExit(report.run({"rules": measure}))

"""The addresses that names have opened in a scope, for those who ask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.records import rule_text
from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.tables import Tables

MOST = 1000
"""Of a scope, in one answer; those that last longest are left out."""


def addresses(
    learned: Iterable[Map], tables: Tables, history: NameHistory, grace: int
) -> list[dict[str, Any]]:
    """Address, ports, seconds left (0: in its time of grace, so many seconds), the rule that opened it, and
    the name that was last looked up for it, if any; the first to go first."""
    now = clock.now_ns()
    lists = tables.rules.port_lists()
    found = []
    for item in learned:
        for key, value in item.items():
            place, opening = abi.OpeningKey.from_buffer_copy(key), abi.Opening.from_buffer_copy(value)
            over = opening.expires_ns + grace * clock.NANOSECONDS < now
            if over or opening.flags or place.port_list >= len(lists):
                continue  # it opens nothing
            address = abi.unpack_address(bytes(place.address))
            found.append((opening.expires_ns, address, lists[place.port_list], opening.rule))
    found.sort(key=lambda each: (each[0], str(each[1])))
    return [
        {
            "address": str(address),
            "ports": sorted(ports),
            "seconds": max(0, (expires - now) // clock.NANOSECONDS),
            "rule": rule_text(tables.rule(rule)) or None,
            "name": history.name_of(address),
        }
        for expires, address, ports, rule in found[:MOST]
    ]

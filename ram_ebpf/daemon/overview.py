"""What `ram-ebpf top` shows, once a second: little enough to be put together in the main loop."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from ram_ebpf.daemon.following import Following
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.summing import Summing
from ram_ebpf.dataplane import abi, clock
from ram_ebpf.policy.rules import NameRule

_RECENT = 3600  # seconds
_MOST_REFUSED = 200
_MOST_EXPIRING = 20
_MOST_LOOKED_AT = 1000  # learned addresses of a scope; each takes two system calls
_MOST_SCOPES = 50


def overview(following: Following, history: NameHistory, summing: Summing) -> dict[str, Any]:
    """Scopes, what was refused most often in the last hour, and the learned addresses that expire next."""
    scopes, expiring = [], []
    for label in following.labels()[:_MOST_SCOPES]:
        found = list(_openings(following, label))
        count = len(found)
        scopes.append(
            {
                "scope": label,
                "posture": following.terms_of(label).posture.value,
                "places": len(following.cgroups_of(label)) + len(following.devices_of(label)),
                "learned": count,
                "more": count >= _MOST_LOOKED_AT,
            }
        )
        expiring += [
            {
                "seconds": round(seconds, 1),
                "address": str(address),
                "name": history.name_of(address),
                "rule": rule.pattern.text,
                "scope": label,
            }
            for seconds, address, rule in found
            if seconds >= 0
        ]
    return {
        "scopes": scopes,
        "refused": summing.most(_MOST_REFUSED, int(time.time()) - _RECENT),
        "expiring": heapq.nsmallest(_MOST_EXPIRING, expiring, key=lambda its: float(str(its["seconds"]))),
    }


def _openings(following: Following, label: str) -> Iterator[tuple[float, abi.IPAddress, NameRule]]:
    """Of so many learned addresses, which the kernel gives in no order: seconds left, address, rule."""
    now = clock.now_ns()
    tables = following.view_of(label).tables
    maps = {scope.maps["learned"].fd: scope.maps["learned"] for scope in following.scopes_of(label)}
    for item in maps.values():
        for key, value in islice(item.items(), _MOST_LOOKED_AT):
            opening = abi.Opening.from_buffer_copy(value)
            rule = tables.rule(opening.rule)
            if isinstance(rule, NameRule) and not rule.deny and not opening.flags:
                address = abi.unpack_address(bytes(abi.OpeningKey.from_buffer_copy(key).address))
                yield (opening.expires_ns - now) / clock.NANOSECONDS, address, rule

"""What `ram-ebpf top` shows, once a second: little enough to be put together in the main loop."""

from __future__ import annotations

import heapq
import time
from typing import Any

from ram_ebpf.daemon import learned
from ram_ebpf.daemon.following import Following
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.summing import Summing
from ram_ebpf.policy.ruleset import NameRule

_RECENT = 3600  # seconds
_MOST_REFUSED = 200
_MOST_EXPIRING = 20
_MOST_LOOKED_AT = 1000  # learned addresses of a scope; each takes two system calls
_MOST_SCOPES = 50


def overview(following: Following, grace: int, history: NameHistory, summing: Summing) -> dict[str, Any]:
    """Scopes, what was refused most often in the last hour, and the learned addresses that expire next.

    `grace`: seconds for which they stay open after that.
    """
    scopes, expiring = [], []
    for label in following.labels()[:_MOST_SCOPES]:
        tables, maps = following.view_of(label).tables, learned.maps_of(following.scopes_of(label))
        found = list(learned.openings(maps, tables, grace, _MOST_LOOKED_AT))
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
                "seconds": round(each.seconds, 1),
                "address": str(each.address),
                "name": history.name_of(each.address),
                "rule": rule.pattern.text,
                "scope": label,
            }
            for each in found
            if isinstance(rule := tables.rule(each.rule), NameRule) and each.seconds >= 0
        ]
    return {
        "scopes": scopes,
        "refused": summing.most(_MOST_REFUSED, int(time.time()) - _RECENT),
        "expiring": heapq.nsmallest(_MOST_EXPIRING, expiring, key=lambda its: float(str(its["seconds"]))),
    }

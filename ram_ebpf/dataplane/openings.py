"""Addresses that user space resolved itself, in the map that no traffic can evict from."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable, Sequence

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.plane import NANOSECONDS, Settings

_log = logging.getLogger(__name__)


def open_addresses(
    seeded: Map,
    addresses: Iterable[tuple[abi.IPAddress, int]],
    ports: Sequence[int],
    rule: int,
    settings: Settings,
) -> None:
    """Opens each address (with its time to live in seconds) on the ports of a rule, or for longer."""
    now = time.monotonic_ns()
    for address, ttl in addresses:
        seconds = min(max(ttl, settings.minimum_ttl), settings.maximum_ttl)
        expires = now + seconds * NANOSECONDS
        for port in (abi.PORT_ANY, *ports):
            key = abi.endpoint(address, port)
            before = seeded.get(key)
            if before is not None and abi.Opening.from_buffer_copy(before).expires_ns >= expires:
                continue
            try:
                seeded[key] = bytes(abi.Opening(expires, rule, 0))
            except OSError as error:
                if error.errno != errno.E2BIG:
                    raise
                _log.warning("no room for %s: more than %d addresses", address, seeded.shape.max_entries)
                return


def remove_expired(seeded: Map, grace: int) -> int:
    """Removes what expired more than `grace` seconds ago; returns how many."""
    limit = time.monotonic_ns() - grace * NANOSECONDS
    gone = [key for key, value in seeded.items() if abi.Opening.from_buffer_copy(value).expires_ns < limit]
    return sum(seeded.discard(key) for key in gone)

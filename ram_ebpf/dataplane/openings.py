"""Addresses that user space resolved itself, as the programs expect them."""

from __future__ import annotations

import errno
import ipaddress
import logging
from collections.abc import Iterable

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.maps import Map
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dataplane.tables import Tables, refused_list
from ram_ebpf.policy.ruleset import NameRule
from ram_ebpf.policy.special import is_special

_log = logging.getLogger(__name__)


def is_refused_as_private(address: abi.IPAddress, rule: NameRule) -> bool:
    """Whether the address is one that a public name has no business to have, and the rule expects none."""
    if rule.private or not is_special(address):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address  # which is what it is to the kernel
    return not any(
        address.version == network.version and address in network for network in rule.private_networks
    )


def open_addresses(
    openings: Map,
    addresses: Iterable[tuple[abi.IPAddress, int]],
    rule: NameRule,
    tables: Tables,
    settings: Settings,
) -> None:
    """Opens each address (with its time to live in seconds) on the ports of a rule, or for longer.

    If the rule denies, the address is refused.
    """
    now = clock.now_ns()
    ports = refused_list(None) if rule.deny else tables.port_list_of(rule)
    for address, ttl in addresses:
        seconds = min(max(ttl, settings.minimum_ttl), settings.maximum_ttl)
        expires = now + seconds * clock.NANOSECONDS
        is_shut = not rule.deny and is_refused_as_private(address, rule)
        flags = abi.OpeningFlag.PRIVATE if is_shut else abi.OpeningFlag(0)
        key = abi.opening_key(address, ports)
        before = openings.get(key)
        if before is not None:
            old = abi.Opening.from_buffer_copy(before)
            if not old.flags & abi.OpeningFlag.PRIVATE and (flags or old.expires_ns >= expires):
                continue
        try:
            openings[key] = bytes(abi.Opening(expires, rule.rank, flags))
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            _log.warning("no room for %s: more than %d addresses", address, openings.shape.max_entries)
            return


def remove_expired(openings: Map, grace: int) -> int:
    """Removes what expired more than `grace` seconds ago; returns how many."""
    limit = clock.now_ns() - grace * clock.NANOSECONDS
    gone = [key for key, value in openings.items() if abi.Opening.from_buffer_copy(value).expires_ns < limit]
    return sum(openings.discard(key) for key in gone)

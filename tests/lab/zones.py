"""Two zones in which every name has addresses of its own, so that none is opened by another one's answer."""

from __future__ import annotations

import ipaddress
import itertools
from collections import defaultdict

ZONE = "zone.test"
OTHER = "other.test"  # where names of the first lead to
ZONES = (ZONE, OTHER)

# All of these are the allowed registry's; see dns_lab.py.
NETWORK_V4 = ipaddress.IPv4Network("10.78.0.0/16")
NETWORK_V6 = ipaddress.IPv6Network("fd78::/64")

_HEAD = """\
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A {server}
"""


class Zones:
    """The zones' records; `addresses` tells what each name leads to."""

    def __init__(self, server: str) -> None:
        self.addresses: dict[str, tuple[str, ...]] = {}
        self._server = server
        self._records: dict[str, list[str]] = defaultdict(list)
        self._used = 0

    def host(self, name: str, v4: int = 1, v6: int = 1, ttl: int = 60) -> tuple[str, ...]:
        """Give a name so many new addresses of each family."""
        addresses = [str(NETWORK_V4[self._used + number]) for number in range(1, v4 + 1)]
        addresses += [str(NETWORK_V6[self._used + number]) for number in range(1, v6 + 1)]
        self._used += max(v4, v6)
        for address in addresses:
            self._add(name, ttl, "AAAA" if ":" in address else "A", address)
        self.addresses[name] = tuple(addresses)
        return self.addresses[name]

    def chain(self, *names: str, ttl: int = 60) -> None:
        """Make each name an alias (CNAME) of the next; the last one must be known."""
        for name, target in itertools.pairwise(names):
            self._add(name, ttl, "CNAME", f"{target}.")
            self.addresses[name] = self.addresses[names[-1]]

    def subtree(self, name: str, target: str) -> None:
        """Make all below a name aliases of what is below another one (DNAME)."""
        self._add(name, 60, "DNAME", f"{target}.")

    def service(self, name: str) -> None:
        """Give a name a record for browsers (HTTPS) with its addresses as hints."""
        hints = [
            f"ipv{version}hint=" + ",".join(found)
            for version, mark in ((4, "."), (6, ":"))
            if (found := [address for address in self.addresses[name] if mark in address])
        ]
        self._add(name, 60, "HTTPS", f"1 . alpn=h2 {' '.join(hints)}")

    def texts(self) -> dict[str, str]:
        """The zone files, by the zones' names."""
        head = _HEAD.format(server=self._server)
        return {zone: head + "".join(self._records[zone]) for zone in ZONES}

    def _add(self, name: str, ttl: int, kind: str, data: str) -> None:
        zone = next(zone for zone in ZONES if name.endswith(f".{zone}"))
        self._records[zone].append(f"{name}. {ttl} {kind} {data}\n")

"""What was refused, as far as it is one thing to an administrator: a host, a port, a reason and a scope."""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass
from typing import Any

from ram_ebpf.oci.reference import ImageNameError, registry_of_domain
from ram_ebpf.policy.choices import IPAddress
from ram_ebpf.policy.names import MAX_NAME, normalise

_VERDICTS = ("deny", "would-deny")
_LONGEST_LABEL = 300  # characters of a scope's label, a rule, or an address
_LONGEST_PROCESS = 64
_HTTPS = 443

Key = tuple[str, str, int, str, str]


@dataclass(slots=True)
class Refused:
    """One thing that was refused, or would have been, so many times."""

    reason: str
    port: int
    """0 where none is known."""
    scope: str
    """How the policy names it; empty for an engine that is in none."""
    host: str = ""
    """As it was looked up or said, so anything may be in it; empty where only the address is known."""
    address: str = ""
    """The one that was used last, if any."""
    protocol: str = ""
    verdict: str = "deny"
    """`deny` or `would-deny`, of the last time."""
    process: str = ""
    """Who tried last, as it calls itself."""
    first: int = 0
    """Seconds since 1970, as `last`."""
    last: int = 0
    count: int = 0
    after: str = ""
    """An allowed name that was looked up shortly before."""
    after_rule: str = ""
    """The pattern by which that is allowed."""
    after_count: int = 0
    """How often such a name was."""

    @property
    def key(self) -> Key:
        """What makes two of them the same. A name stands for all its addresses."""
        return self.scope, self.host or self.address, self.port, self.protocol, self.reason

    @property
    def name(self) -> str | None:
        """The host, where it is a host name."""
        return self.host if self.host and normalise(self.host) == self.host else None

    @property
    def ip_address(self) -> IPAddress | None:
        """The address, an IPv4-mapped one as the IPv4 address that it is on the wire."""
        try:
            address = ipaddress.ip_address(self.address)
        except ValueError:
            return None
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return mapped or address

    def join(self, newer: Refused) -> None:
        """Adds another of the same key, which came later."""
        self.count += newer.count
        self.last = max(self.last, newer.last)
        self.first = min(self.first, newer.first)
        self.verdict = newer.verdict
        self.address = newer.address or self.address
        self.process = newer.process or self.process
        if newer.after:
            self.after, self.after_rule = newer.after, newer.after_rule
        self.after_count += newer.after_count

    def to_json(self) -> dict[str, Any]:
        """What is not known is left out."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value not in ("", 0)}


def from_record(record: dict[str, Any], now: int) -> Refused | None:
    """From a line of the log that refuses something; None for others, and where another line says it.

    `now`: seconds since 1970.
    """
    if record.get("verdict") not in _VERDICTS:
        return None
    if record["reason"] == "name-mismatch" and not record.get("name"):
        return None  # what is sent behind the name, of which there was a line
    made = Refused(
        reason=str(record["reason"]),
        port=int(record.get("port") or 0),
        scope=_cut(record.get("scope")),
        host=_cut(record.get("host"), MAX_NAME + 1),  # one more than a host name has, so that it is none
        address=_cut(record.get("address")),
        protocol=_cut(record.get("protocol")),
        verdict=record["verdict"],
        process=_cut(record.get("process") or record.get("user"), _LONGEST_PROCESS),
        first=now,
        last=now,
        count=1,
    )
    if record.get("name"):  # for whom the connection was; the host is whose address it went to
        made.host = _cut(record["name"], MAX_NAME + 1)
        made.host = normalise(made.host) or made.host
    elif record.get("after"):
        made.after, made.after_rule = _cut(record["after"], MAX_NAME), _cut(record.get("after_rule"))
        made.after_count = 1
    if "method" in record:
        _take_registry(made, record.get("registry"))
    return made


def _take_registry(made: Refused, registry: object) -> None:
    """Of a request to Docker's API: where the engine would have connected."""
    made.protocol = "tcp"
    try:
        found = registry_of_domain(str(registry)) if registry else None
    except ImageNameError:
        found = None
    if found is None:
        return
    made.port = found.port or _HTTPS
    if found.address is not None:
        made.address = str(found.address)
    else:
        made.host = found.contact


def _cut(value: object, most: int = _LONGEST_LABEL) -> str:
    return "" if value is None else str(value)[:most]


def from_json(value: object) -> Refused | None:
    """What to_json() gave; None for anything else."""
    if not isinstance(value, dict):
        return None
    known = {item.name: item for item in dataclasses.fields(Refused)}
    if not value.keys() <= known.keys() or not isinstance(value.get("reason"), str):
        return None
    found = {"port": 0, "scope": "", **value}
    for name, its in found.items():
        wanted: type = int if known[name].type == "int" else str
        if type(its) is not wanted or (isinstance(its, str) and len(its) > _LONGEST_LABEL):
            return None
    made = Refused(**found)
    fits = 0 <= made.port < 65536 and made.count > 0 and made.after_count >= 0
    dated = 0 <= made.first <= made.last < 1 << 34  # until the year 2514
    return made if fits and dated and made.verdict in _VERDICTS else None

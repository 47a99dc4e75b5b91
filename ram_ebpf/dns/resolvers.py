"""The resolvers of this host: resolv.conf(5), and what stands behind systemd-resolved."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.dns.addresses import host_addresses
from ram_ebpf.policy.choices import MAX_RESOLVERS
from ram_ebpf.policy.enforced import EnforcedResolver, PolicyLike

if TYPE_CHECKING:
    from ram_ebpf.policy.model import Resolver

RESOLV_CONF = Path("/etc/resolv.conf")
# The resolvers that systemd-resolved itself asks; containers get these where the host uses its stub.
RESOLVED_UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
_RESOLVED_STUBS = {ipaddress.ip_address("127.0.0.53"), ipaddress.ip_address("127.0.0.54")}
_DEFAULT = ipaddress.ip_address("127.0.0.1")  # resolv.conf(5): without a nameserver line, this host
_MAX_BYTES = 65536


def parse_nameservers(text: str) -> list[IPAddress]:
    """The `nameserver` addresses in their order, without their zones; what is no address is passed over."""
    found: list[IPAddress] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1].partition("%")[0])
            except ValueError:
                continue
            if address not in found:
                found.append(address)
    return found


def parse_words(text: str, keyword: str) -> list[str]:
    """What stands behind a keyword such as `search` or `options`: the last such line counts (resolv.conf(5)).

    `domain` is an older way to write `search` with one word.
    """
    keywords = ("search", "domain") if keyword == "search" else (keyword,)
    lines = [words[1:] for line in text.splitlines() if (words := line.split()) and words[0] in keywords]
    return lines[-1] if lines else []


def read_resolv_conf(path: Path = RESOLV_CONF) -> str:
    """The text of such a file, empty where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError:
        return ""
    if len(data) == _MAX_BYTES:  # half an address would be another address
        data = data[: data.rfind(b"\n") + 1]
    return data.decode("utf-8", errors="replace")


def is_resolved_stub(address: IPAddress) -> bool:
    """Whether systemd-resolved answers there on this host."""
    return address in _RESOLVED_STUBS


def _trusted(addresses: Iterable[tuple[IPAddress, int]], local: set[IPAddress]) -> list[TrustedResolver]:
    return [TrustedResolver(a, port, a.is_loopback or a in local) for a, port in dict.fromkeys(addresses)]


def auto_resolvers(
    resolv_conf: Path = RESOLV_CONF,
    resolved_upstream: Path = RESOLVED_UPSTREAM,
    local: set[IPAddress] | None = None,
) -> list[TrustedResolver]:
    """What `resolvers: auto` means here and now."""
    addresses = parse_nameservers(read_resolv_conf(resolv_conf)) or [_DEFAULT]
    if _RESOLVED_STUBS.intersection(addresses):
        addresses += parse_nameservers(read_resolv_conf(resolved_upstream))
    known = host_addresses() if local is None else local
    # Clients ask the first three (MAXNS of resolv.conf(5)); what no map holds is for no client either.
    return _trusted(((address, 53) for address in addresses), known)[:MAX_RESOLVERS]


def configured_resolvers(
    resolvers: Sequence[Resolver | EnforcedResolver], local: set[IPAddress] | None = None
) -> list[TrustedResolver]:
    """The resolvers that a policy lists."""
    known = host_addresses() if local is None else local
    return _trusted(((resolver.address, resolver.port) for resolver in resolvers), known)


def resolvers_of(policy: PolicyLike, local: set[IPAddress] | None = None) -> list[TrustedResolver]:
    """The resolvers that a policy trusts, here and now. `local`: this host's addresses; None: they are looked
    up. Raises OSError."""
    if isinstance(policy.resolvers, str):
        return auto_resolvers(local=local)
    return configured_resolvers(policy.resolvers, local)

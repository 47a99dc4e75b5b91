"""Who lives at which address of the lab: the one place for numbers and names."""

from __future__ import annotations

from dataclasses import dataclass

PREFIX_V4 = 24
PREFIX_V6 = 64

RESOLVER = "10.77.0.53"
RESOLVER_V6 = "fd77::53"
# Free addresses of the DNS namespace, on which tests start a resolver that misbehaves.
ROGUE_RESOLVER = "10.77.0.54"
ROGUE_RESOLVER_V6 = "fd77::54"

CLIENT = "10.77.0.10"
CLIENT_V6 = "fd77::10"

ALLOWED = "10.77.0.20"
ALLOWED_V6 = "fd77::20"
CDN = "10.77.0.21"
CDN_V6 = "fd77::21"
V6ONLY = "fd77::22"
# More A records than fit into 512 octets, so that an answer without EDNS comes by TCP.
MANY = tuple(f"10.77.0.{host}" for host in range(100, 140))

BLOCKED = "10.77.0.30"
BLOCKED_V6 = "fd77::30"
NOTALLOWED = "10.77.0.31"
NOTALLOWED_V6 = "fd77::31"

# Every namespace but the resolver's routes the rest of the world to the blocked registry's namespace.
# Whatever public address a test needs is thus added there, and no packet can leave the machine.
GATEWAY = BLOCKED
GATEWAY_V6 = BLOCKED_V6


@dataclass(frozen=True)
class Role:
    """One namespace with a cable to the lab's bridge."""

    name: str
    addresses: tuple[str, ...]
    routes_world: bool = False


CLIENT_ROLE = Role("client", (CLIENT, CLIENT_V6), routes_world=True)
DNS_ROLE = Role("dns", (RESOLVER, RESOLVER_V6, ROGUE_RESOLVER, ROGUE_RESOLVER_V6))
ALLOWED_ROLE = Role("allowed", (ALLOWED, ALLOWED_V6, CDN, CDN_V6, V6ONLY, *MANY))
BLOCKED_ROLE = Role("blocked", (BLOCKED, BLOCKED_V6, NOTALLOWED, NOTALLOWED_V6))
ROLES = (CLIENT_ROLE, DNS_ROLE, ALLOWED_ROLE, BLOCKED_ROLE)

# The default TTL is long enough to outlive a test; names with another one say so.
DEFAULT_TTL = 60
SHORT_TTL = 2

ADDRESSES: dict[str, tuple[tuple[str, ...], int]] = {
    "allowed.registry.test": ((ALLOWED, ALLOWED_V6), DEFAULT_TTL),
    "cdn.allowed.registry.test": ((CDN, CDN_V6), DEFAULT_TTL),
    "v4only.registry.test": ((ALLOWED,), DEFAULT_TTL),
    "v6only.registry.test": ((V6ONLY,), DEFAULT_TTL),
    "many.registry.test": (MANY, DEFAULT_TTL),
    "short.registry.test": ((ALLOWED,), SHORT_TTL),
    "zero.registry.test": ((ALLOWED,), 0),
    "blocked.registry.test": ((BLOCKED, BLOCKED_V6), DEFAULT_TTL),
    "notallowed.registry.test": ((NOTALLOWED, NOTALLOWED_V6), DEFAULT_TTL),
}

CNAMES: dict[str, tuple[str, int]] = {
    # A chain of three, as content delivery networks have them.
    "alias.registry.test": ("alias-2.registry.test", DEFAULT_TTL),
    "alias-2.registry.test": ("alias-3.registry.test", DEFAULT_TTL),
    "alias-3.registry.test": ("allowed.registry.test", DEFAULT_TTL),
    # A name of the blocked owner that points at the allowed registry, and the reverse.
    "blocked-to-allowed.registry.test": ("allowed.registry.test", DEFAULT_TTL),
    "allowed-to-blocked.registry.test": ("blocked.registry.test", DEFAULT_TTL),
}

CERTIFICATE_NAMES = (
    "*.registry.test",
    "*.allowed.registry.test",
    "*.zone.test",
    *ADDRESSES,
    *CNAMES,
    *(address for role in (ALLOWED_ROLE, BLOCKED_ROLE) for address in role.addresses),
)

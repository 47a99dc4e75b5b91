"""Which registry a name of an image is for, by the grammar of Docker's references.

The grammar is that of github.com/distribution/reference (reference.go, regexp.go), and what is a host is said
by its normalize.go: the part before the first slash, if it has a dot, a colon or a capital letter, or is
`localhost`. Without such a part it is Docker Hub.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it is slow to import, and who waits for Docker's command reads names as well
    from ram_ebpf.policy.fields import IPAddress

HUB = "docker.io"
HUB_HOST = "registry-1.docker.io"
"""Where Docker Engine connects for Docker Hub (moby, registry/config.go)."""
_HUB_NAMES = (HUB, "index.docker.io")
MAX_REFERENCE = 1024
"""Characters. Docker takes 255 for a repository, 128 for a tag, and a digest."""

_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = rf"(?P<host>{_PART}(?:\.{_PART})*|\[[a-fA-F0-9:]+\])(?::(?P<port>[0-9]{{1,8}}))?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REMAINDER = (
    rf"{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?"
)
_DOMAIN_ALONE = re.compile(_DOMAIN)
_REMAINDER_ALONE = re.compile(_REMAINDER)
# Twelve digits are how Docker's own commands show one. Any shorter or longer part may as well be a name.
_IDENTIFIER = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}|sha256:[0-9a-f]{1,64}")


class ImageNameError(ValueError):
    """No name of an image, or of what else was expected; str() says what it is."""


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry as an image names it."""

    host: str
    """A name in lower case, or an address without brackets; `docker.io` for Docker Hub."""
    port: int | None = None
    """None: none was written."""
    hub: bool = False
    """Docker Hub, and not a host that happens to have its name."""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def contact(self) -> str:
        """The host that an engine connects to."""
        return HUB_HOST if self.hub else self.host

    @property
    def address(self) -> IPAddress | None:
        """What is named by address; an IPv4-mapped one as the IPv4 address that is connected to."""
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return None
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return mapped or address


DOCKER_HUB = Registry(HUB, hub=True)


def registry_of(reference: str) -> Registry:
    """The registry of an image's name, with or without tag and digest. Raises ImageNameError."""
    if len(reference) > MAX_REFERENCE:
        raise ImageNameError(f"a name of more than {MAX_REFERENCE} characters")
    first, slash, rest = reference.partition("/")
    if slash and _is_domain(first):
        registry, remainder = registry_of_domain(first), rest
    else:
        registry, remainder = DOCKER_HUB, reference
    if not _REMAINDER_ALONE.fullmatch(remainder):
        raise ImageNameError("not the name of an image")
    return registry


def registry_of_domain(domain: str) -> Registry:
    """`ghcr.io`, `localhost:5000`, `[::1]:5000`. Raises ImageNameError."""
    found = _DOMAIN_ALONE.fullmatch(domain) if len(domain) <= MAX_REFERENCE else None
    if found is None:
        raise ImageNameError("not a registry's host")
    # As it is written: Docker takes DOCKER.IO for a host, as it does docker.io:443, and not for its hub.
    if domain in _HUB_NAMES:
        return DOCKER_HUB
    host = found["host"].lower()
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ImageNameError("not an IPv6 address") from None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 0 < port < 65536:
        raise ImageNameError(f"{port} is not a port")
    return Registry(host, port)


def registry_of_search(term: str) -> Registry:
    """Where `docker search` asks (moby, registry/search.go). Raises ImageNameError."""
    first, slash, _ = term.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return registry_of_domain(first)
    return DOCKER_HUB


def is_identifier(reference: str) -> bool:
    """Whether it is an image's own identifier, or a part of one as Docker shows it, and names no registry."""
    return _IDENTIFIER.fullmatch(reference) is not None


def _is_domain(first: str) -> bool:
    return first == "localhost" or "." in first or ":" in first or first.lower() != first

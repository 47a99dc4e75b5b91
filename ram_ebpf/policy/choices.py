"""The words that a policy chooses from, apart from how its file is checked.

This and the other modules that the daemon keeps loaded (ruleset.py, enforced.py, terms.py, names.py) import
no pydantic: it takes as much memory as 100 000 rules do.
"""

from __future__ import annotations

import ipaddress
from enum import Enum

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Mode(str, Enum):
    """Whether what is denied is dropped, or only reported."""

    ENFORCE = "enforce"
    AUDIT = "audit"


class Posture(str, Enum):
    """How much of a scope's traffic is governed."""

    STRICT = "strict"  # everything but trusted DNS must go to an allowed address
    REGISTRIES = "registries"  # only what is recognisably registry traffic is governed


class Engine(str, Enum):
    """Container engines that can be found by name."""

    DOCKER = "docker"
    CONTAINERD = "containerd"
    PODMAN = "podman"
    CRIO = "crio"
    ALL = "all"


class Builders(str, Enum):
    """Kinds of image builders that run in containers of their own."""

    BUILDX = "buildx"  # those that the Docker daemon knows of
    KUBERNETES = "kubernetes"  # those that this node's container runtime knows of
    ANY = "any"  # whatever runs buildkitd on this host


class Unknown(str, Enum):
    """What becomes of a connection to a name of which nobody knows whether a registry answers there."""

    PROBE = "probe"  # it passes, the host is asked once, and what turns out to be a registry is cut
    ALLOW = "allow"  # it passes, and nobody asks
    DENY = "deny"  # it is refused until the host was asked


class Earlier(str, Enum):
    """What becomes of connections that were open before they were governed, whose name nobody has read."""

    ALLOW = "allow"  # they are judged by their address alone
    CUT = "cut"


class OnRemoval(str, Enum):
    """What becomes of open connections that were allowed by a rule which is no longer in the policy."""

    CUT = "cut"
    KEEP = "keep"


class ServerName(str, Enum):
    """Whether a TLS connection must say to whom it is (RFC 6066 3)."""

    REQUIRED = "required"
    OPTIONAL = "optional"


class Switch(str, Enum):
    """Text in YAML 1.2, unlike true and false."""

    ON = "on"
    OFF = "off"


class Action(str, Enum):
    """What may be done with a registry, by the names of Docker's own commands."""

    PULL = "pull"
    PUSH = "push"
    LOGIN = "login"


ALL_ACTIONS: tuple[Action, ...] = tuple(Action)

MAX_PORT_LISTS = 64
"""Different lists of ports in one policy: the kernel keeps a bit for each."""

MAX_RESOLVERS = 64
"""Trusted ones: as many has the kernel's map `resolvers` (bpf/lib/maps.h) room for."""

LABEL_PREFIX = "label="
"""In front of a label by which containers are named."""

"""Name servers as hosts have them, from Debian's packages, each for the time of a `with` block."""

from __future__ import annotations

from .bind import Bind
from .dnsmasq import LocalDnsmasq
from .resolved import Resolved
from .server import Server
from .unbound import Unbound

__all__ = ["Bind", "LocalDnsmasq", "Resolved", "Server", "Unbound"]

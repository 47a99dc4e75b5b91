"""What becomes of enforcement when the daemon is gone for longer than a lease."""

from __future__ import annotations

from enum import Enum

DEFAULT_LEASE = 300
"""Seconds: longer than a restart takes, or a daemon that is stopped for a minute."""
MOST = 604800
"""Seconds: a week."""


class Fail(str, Enum):
    """The kernel enforces without the daemon; it only learns no names over TCP then, and nobody is told."""

    CLOSED = "closed"  # for ever
    OPEN = "open"  # until the lease has expired; then everything passes until a daemon is back

"""Whether refused connections are answered by the responder, where, and if not why: for `ram-ebpf status`.

Imports nothing of the responder, which is not loaded where it is off or cannot be.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Answered(str, Enum):
    """Where it is not ON, refusals are EPERM."""

    ON = "on"
    WAITING = "waiting"
    """No control group is governed yet, and at devices there is nobody to lead."""
    STARTING = "starting"
    FAILED = "failed"
    """It is tried again, unless what it needs is not installed."""
    OFF = "off"
    """By the policy."""


SERVED = ("answered", "unanswered", "shed")
"""What came of the connections that were led there: the fields of Served in responder/channel.py."""


@dataclass(frozen=True)
class ResponderState:
    """At one moment. `listens`: ADDRESS:PORT, the same in all network namespaces; `namespaces`: in how many
    it listens beside the daemon's own; `without`: in how many it cannot; `why`: if not on, or not in all."""

    state: Answered
    listens: tuple[str, ...] = ()
    namespaces: int = 0
    without: int = 0
    why: str | None = None

    def describe(self) -> dict[str, Any]:
        """For the control socket."""
        return {
            "state": self.state.value,
            "listens": list(self.listens),
            "namespaces": self.namespaces,
            "without": self.without,
            "why": self.why,
        }

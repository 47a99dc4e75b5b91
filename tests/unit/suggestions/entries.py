"""What was refused, for tests."""

from __future__ import annotations

from typing import Any

from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.model import Policy
from ram_ebpf.suggestions.refused import Refused

NOW = 1_790_000_000


def refused(host: str = "", port: int = 443, **changes: Any) -> Refused:
    """A connection that would have been refused once."""
    values: dict[str, Any] = {
        "reason": "denied-unknown-address",
        "scope": "engine docker",
        "address": "192.0.2.1",
        "protocol": "tcp",
        "verdict": "would-deny",
        "process": "dockerd",
        "first": NOW,
        "last": NOW,
        "count": 1,
    }
    return Refused(host=host, port=port, **{**values, **changes})


def policy_of(text: str) -> Policy:
    """From the file `policy.yaml`."""
    return parse_policy(text.encode(), "policy.yaml", load_catalogue())

"""What is to become of a connection by its first bytes, by the second implementation (tls_reference.py)."""

from __future__ import annotations

from ram_ebpf.dataplane.abi import Reason, Stage

from .support import Bench
from .tls_reference import MoreNeededError, StrangeError, server_names

STAGES = {
    Reason.ALLOWED_NAME: Stage.NAMED,
    Reason.ALLOWED_ESTABLISHED: Stage.UNNAMED,
    Reason.NAME_MISMATCH: Stage.CUT,
    Reason.DENIED_NOT_NAMED: Stage.CUT,
}


def is_allowed(bench: Bench, name: bytes) -> bool:
    """On port 443."""
    try:
        rule = bench.plane.tables.rules.allows(name.decode("ascii"))
    except UnicodeDecodeError:
        return False
    return rule is not None and 443 in rule.ports


def verdict(bench: Bench, sent: bytes) -> Reason:
    """ALLOWED_ESTABLISHED: it takes more to know, and what is there may leave."""
    found = False
    try:
        for name in server_names(sent):
            if not is_allowed(bench, name):
                return Reason.NAME_MISMATCH
            found = True
    except MoreNeededError:
        return Reason.ALLOWED_ESTABLISHED
    except StrangeError:
        return Reason.DENIED_NOT_NAMED
    return Reason.ALLOWED_NAME if found else Reason.DENIED_NOT_NAMED

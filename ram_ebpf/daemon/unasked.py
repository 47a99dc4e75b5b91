"""Which events are about a server that was not asked yet whether it is a registry; see asking.py."""

from __future__ import annotations

from ram_ebpf.dataplane.abi import Reason

UNASKED = frozenset({Reason.ALLOWED_UNASKED, Reason.DENIED_UNASKED})

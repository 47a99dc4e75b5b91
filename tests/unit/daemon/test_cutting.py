"""Which connections are ended for what they began with."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest

from ram_ebpf.daemon.cutting import Cutter, connection_of
from ram_ebpf.dataplane.abi import Reason, Verdict
from ram_ebpf.dataplane.events import Beginning
from ram_ebpf.dataplane.sockets import Connection

from .samples import EVENT

LOCAL = ipaddress.ip_address("10.0.0.2")
REFUSED = replace(
    EVENT, reason=Reason.NAME_MISMATCH, beginning=Beginning(LOCAL, 40000, b"...evil.example", "evil.example")
)


def test_connection() -> None:
    assert connection_of(REFUSED) == Connection(LOCAL, 40000, EVENT.address, 443)
    assert connection_of(replace(REFUSED, reason=Reason.DENIED_NOT_NAMED)) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": Verdict.WOULD_DENY},
        {"reason": Reason.DENIED_UNKNOWN_ADDRESS},
        {"reason": Reason.DENIED_SEGMENT},
        {"protocol": 17},
        {"socket_cookie": 0},  # at a device, where a reset was sent
        {"beginning": None},  # without a packet either
    ],
)
def test_nothing_to_end(changes: dict[str, object]) -> None:
    assert connection_of(replace(REFUSED, **changes)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("directory", [None, Path("/nonexistent")])
def test_connection_that_is_gone(directory: Path | None) -> None:
    """Nothing happens, and nothing is raised."""
    asked: list[int] = []

    def cgroup(identifier: int) -> Path | None:
        asked.append(identifier)
        return directory

    Cutter(cgroup).take(REFUSED)
    assert asked == [77]

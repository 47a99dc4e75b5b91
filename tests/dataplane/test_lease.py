"""`fail: open`: nothing is refused any more when user space has been gone for longer than a lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import TCP

from ram_ebpf.dataplane import clock
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.settings import Settings

from .exchanges import DENIED_NAMES, REGISTRIES
from .support import Bench, ip

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

LEASE = 300
SYN = ip("203.0.113.9") / TCP(dport=443, flags="S")


@contextmanager
def seen(bench: Bench, seconds_ago: float) -> Iterator[None]:
    """User space was, so long ago."""
    then = max(0, clock.now_ns() - int(seconds_ago * NANOSECONDS))  # the host may have started since
    bench.plane.maps["alive"][bytes(4)] = then.to_bytes(8, "little")
    try:
        yield
    finally:
        bench.plane.show_alive()


@pytest.mark.parametrize(("ago", "passes"), [(0, False), (LEASE - 30, False), (LEASE + 1, True)])
def test_lease(bench: Bench, ago: float, passes: bool) -> None:
    with bench.configured(Settings(lease=LEASE)), seen(bench, ago):
        assert bench.egress(SYN) is passes
    assert bench.counted() == {Reason.DENIED_UNKNOWN_ADDRESS: 1}
    assert not bench.egress(SYN)  # another instance is there


def test_for_ever(bench: Bench) -> None:
    """Which is the default."""
    with seen(bench, 3600):
        assert not bench.egress(SYN)

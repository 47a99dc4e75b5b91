"""ClientHellos of all kinds (hello_variants.py): the kernel reads them as a second implementation does."""

from __future__ import annotations

import pytest

from ram_ebpf.dataplane.abi import Reason, Stage

from .beginnings import DENIED_NAMES, REGISTRIES, fresh
from .hello_variants import ALL, GOOD, hello, named, unknown
from .hello_verdict import STAGES, is_allowed, verdict
from .support import Bench
from .tls_tolerant import names

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane
PLACE = "device"


@pytest.mark.parametrize(("sent", "expected"), [pytest.param(*made, id=name) for name, made in ALL.items()])
def test_variant(opened: Bench, sent: bytes, expected: Reason) -> None:
    assert verdict(opened, sent) is expected
    connection = fresh(opened)
    counted = set()
    for at in range(0, len(sent), 1400):
        connection.sends(sent[at : at + 1400], at)
        counted |= set(opened.counted())
    assert connection.stage is STAGES[expected]
    assert expected in counted
    if expected is Reason.ALLOWED_NAME:
        # The most tolerant server finds nothing but names that are allowed.
        found = names(sent)
        assert found is None or (found and all(is_allowed(opened, name) for name in found))


def test_more_steps_than_there_are(opened: Bench) -> None:
    """They are bounded for a packet. The second implementation's are not."""
    sent = hello([*(unknown(0x4000 + at) for at in range(800)), named(GOOD)])
    assert verdict(opened, sent) is Reason.ALLOWED_NAME
    assert not fresh(opened).sends(sent)
    assert opened.counted() == {Reason.DENIED_NOT_NAMED: 1}
    connection = fresh(opened)
    for at in range(0, len(sent), 1400):
        assert connection.sends(sent[at : at + 1400], at)
    assert connection.stage is Stage.NAMED

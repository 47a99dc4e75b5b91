"""What was refused last."""

from __future__ import annotations

import pytest

from ram_ebpf.daemon.refusals import LastRefusals


def test_the_latest_comes_first_and_the_oldest_goes() -> None:
    kept = LastRefusals(most=3)
    for number in range(5):
        kept.note({"event": "denied", "number": number})
        kept.note({"event": "allowed", "number": -1})
        kept.note({"event": "scope-back"})
    kept.note({"event": "would-deny", "number": 5})
    assert [record["number"] for record in kept.last(10)] == [5, 4, 3]
    assert [record["number"] for record in kept.last(1)] == [5]
    assert kept.noted == 6


@pytest.mark.parametrize("count", [1, 100])
def test_nothing(count: int) -> None:
    assert LastRefusals().last(count) == []

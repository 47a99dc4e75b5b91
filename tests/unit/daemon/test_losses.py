"""What was lost is said: at once, and then now and then with all that came since."""

from __future__ import annotations

from ram_ebpf.daemon.losses import Losses

from .clock import Clock


def test_losses() -> None:
    clock, lines = Clock(), list[tuple[str, int]]()
    losses = Losses(lambda event, explanation, *, count: lines.append((explanation, count)), clock)
    losses.tell(60)
    losses.note("events-lost", "events came too fast", 0)
    losses.tell(60)
    assert lines == []
    for _ in range(100):
        losses.note("events-lost", "events came too fast", 3)
        losses.tell(60)
        clock.now += 1
    losses.note("events-lost", "refusals", 7)
    losses.tell(60, at_once=True)
    assert lines == [
        ("3 events came too fast", 3),
        ("180 events came too fast", 180),
        ("117 events came too fast", 117),
        ("7 refusals", 7),
    ]
    assert losses.totals == {"events-lost": 307}

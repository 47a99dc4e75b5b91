"""A value of a metric. By itself, so that whoever counts needs nothing of what metrics are served with."""

from __future__ import annotations

from typing import NamedTuple


class Sample(NamedTuple):
    """A value of the metric of a name. `labels`: their values, in the order of the metric."""

    name: str
    value: float
    labels: tuple[str, ...] = ()

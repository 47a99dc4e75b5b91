"""How many lines the log gets."""

from __future__ import annotations

from typing import Annotated

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.fields import choice, integer_between
from ram_ebpf.policy.refusals import Switch


class LogOptions(PolicyModel):
    """Whoever causes lines must not fill a disk with them. Whatever is left out is counted, and said."""

    limit: Annotated[Switch, choice(Switch)] = Switch.ON
    """Off: each decision is a line."""
    lines_per_minute: Annotated[int, integer_between(1, 60000, "a number of lines for this")] = 60
    """For each reason and source, over the long run."""
    burst: Annotated[int, integer_between(1, 60000, "a number of lines for this")] = 100
    """Lines at once, from a source that was silent before."""
    report_seconds: Annotated[int, integer_between(1, 3600, "a number of seconds for this")] = 60
    """Between two reports of what was left out."""

"""Who may ask a running instance, beside root."""

from __future__ import annotations

from typing import Annotated

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.fields import text_like


class ControlOptions(PolicyModel):
    """Of the socket by which an instance is asked."""

    group: Annotated[
        str | None,
        text_like(
            r"[a-z_][a-z0-9_-]{0,31}", "the name of a group", "write one of /etc/group, such as ram-ebpf"
        ),
    ] = None
    """Its members may ask what is enforced and what was refused, and may change nothing."""

"""What is asked of a connection beside its address."""

from __future__ import annotations

from typing import Annotated

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.choices import Earlier as Earlier
from ram_ebpf.policy.choices import OnRemoval as OnRemoval
from ram_ebpf.policy.choices import ServerName as ServerName
from ram_ebpf.policy.fields import Boolean, choice


class Connections(PolicyModel):
    """Whether the name that a connection begins with is read, and what if that is too late."""

    read_names: Boolean = True
    """A name opens an address, but a connection there must be for an allowed name too."""
    earlier: Annotated[Earlier, choice(Earlier)] = Earlier.ALLOW
    on_removal: Annotated[OnRemoval, choice(OnRemoval)] = OnRemoval.CUT

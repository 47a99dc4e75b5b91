"""What is asked of a connection beside its address."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.fields import Boolean, choice


class Earlier(str, Enum):
    """What becomes of connections that were open before they were governed, whose name nobody has read."""

    ALLOW = "allow"  # they are judged by their address alone
    CUT = "cut"


class OnRemoval(str, Enum):
    """What becomes of open connections that were allowed by a rule which is no longer in the policy."""

    CUT = "cut"
    KEEP = "keep"


class ServerName(str, Enum):
    """Whether a TLS connection must say to whom it is (RFC 6066 3)."""

    REQUIRED = "required"
    OPTIONAL = "optional"


class Connections(PolicyModel):
    """Whether the name that a connection begins with is read, and what if that is too late."""

    read_names: Boolean = True
    """A name opens an address, but a connection there must be for an allowed name too."""
    earlier: Annotated[Earlier, choice(Earlier)] = Earlier.ALLOW
    on_removal: Annotated[OnRemoval, choice(OnRemoval)] = OnRemoval.CUT

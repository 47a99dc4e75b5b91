"""How those who are refused are told."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.fields import choice


class Switch(str, Enum):
    """Text in YAML 1.2, unlike true and false."""

    ON = "on"
    OFF = "off"


class Refusals(PolicyModel):
    """Beside the refusal itself, which is the kernel's."""

    responder: Annotated[Switch, choice(Switch)] = Switch.ON
    """Whether refused connections are led to a responder of this host that says why; off: they get EPERM."""

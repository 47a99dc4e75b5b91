"""How those who are refused are told."""

from __future__ import annotations

from typing import Annotated

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.choices import Switch as Switch
from ram_ebpf.policy.fields import choice


class Refusals(PolicyModel):
    """Beside the refusal itself, which is the kernel's."""

    responder: Annotated[Switch, choice(Switch)] = Switch.ON
    """Whether refused connections are led to a responder of this host that says why; off: they get EPERM."""

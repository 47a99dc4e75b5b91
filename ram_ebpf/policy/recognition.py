"""How registries are recognised that the policy says nothing about, in scopes of posture `registries`."""

from __future__ import annotations

from typing import Annotated

from pydantic import model_validator

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.choices import Unknown as Unknown
from ram_ebpf.policy.fields import PortsOrNone, choice, refuse


class Recognition(PolicyModel):
    """What counts as a registry beside the names of the catalogue and of `denied`."""

    unknown: Annotated[Unknown, choice(Unknown)] = Unknown.PROBE
    registry_ports: PortsOrNone = (5000,)
    """What goes there is a registry's, whatever answers."""
    unknown_ports: PortsOrNone = (80, 443, 8080, 8443)
    """On which `unknown` has its effect."""

    @model_validator(mode="after")
    def _apart(self) -> Recognition:
        if both := sorted({*self.registry_ports} & {*self.unknown_ports}):
            refuse(
                f"port {both[0]} is in registry_ports and in unknown_ports",
                "keep it in one of them: what goes to registry_ports is refused without asking",
            )
        return self

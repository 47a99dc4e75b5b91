"""Docker Engine's own part in a policy: whether it asks before it does what names a registry."""

from __future__ import annotations

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.fields import Boolean


class DockerOptions(PolicyModel):
    """What is offered to Docker Engine on this host."""

    authorization: Boolean = False
    """Whether the authorization plugin is served."""

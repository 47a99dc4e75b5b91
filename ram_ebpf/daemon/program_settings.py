"""What the programs are told of a policy beside its rules."""

from __future__ import annotations

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.policy.choices import Earlier, Mode, OnRemoval
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.policy.terms import Terms


def settings_of(policy: PolicyLike) -> Settings:
    """What the programs are told of a policy beside its rules."""
    return Settings(
        mode=abi.Mode.AUDIT if policy.mode is Mode.AUDIT else abi.Mode.ENFORCE,
        grace=policy.dns.grace_seconds,
        minimum_ttl=policy.dns.minimum_ttl_seconds,
        maximum_ttl=policy.dns.maximum_ttl_seconds,
        allowed_names_only=policy.dns.allowed_names_only,
        unknown=abi.Unknown[policy.recognition.unknown.name],
        registry_ports=policy.recognition.registry_ports,
        asked_ports=policy.recognition.unknown_ports,
        read_names=policy.connections.read_names,
        cut_earlier=policy.connections.earlier is Earlier.CUT,
        keep_removed=policy.connections.on_removal is OnRemoval.KEEP,
        lease=policy.lease or 0,
    )


def posture_of(terms: Terms) -> abi.Posture:
    """As the programs know it."""
    return abi.Posture[terms.posture.name]

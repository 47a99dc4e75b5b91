"""Cases for the doctor, from the text of a policy."""

from __future__ import annotations

from pathlib import Path

from ram_ebpf.doctor.case import Case
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.scope_rules import rules_of_scopes


def case_of(text: str, cgroup_root: Path | None = None) -> Case:
    """With a policy that is right."""
    catalogue = load_catalogue()
    policy = parse_policy(text.encode(), "policy.yaml", catalogue)
    return Case(policy, rules_of_scopes(policy, catalogue), "policy.yaml", (), cgroup_root)


POLICY = """\
version: 1
registries:
  - host: registry.corp.example
    ports: [443, 5000]
  - host: inside.corp.example
    private: [10.20.0.0/16]
  - host: "*.mirrors.corp.example"
  - address: 10.30.0.7
    ports: [443, 5000]
denied: [bad.mirrors.corp.example]
"""

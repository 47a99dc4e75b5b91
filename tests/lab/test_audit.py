"""From mode audit, in which nothing is refused, by what is suggested then, to enforcement."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ram_ebpf.policy.loader import load_policy
from tests.adversarial.actor import Actor
from tests.adversarial.field import governed, tcp_connect, wait_line

from . import topology
from .lab import Lab
from .test_status import ask

pytestmark = pytest.mark.root

NAMELESS = "203.0.113.250"
POLICY = f"""\
version: 1
mode: audit
refusals:
  responder: off
resolvers: [{Lab.resolver}]
denied: [notallowed.registry.test]
registries:
  - host: allowed.registry.test
    private: true
"""


def lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if "#" not in line]


def test_from_audit_to_enforcement(lab: Lab) -> None:
    scope = lab.new_cgroup("suggest")
    lab.blocked.node.add_addresses(NAMELESS)
    with governed(lab, POLICY, scopes=[scope]) as daemon:
        lab.client.pull(f"blocked.registry.test/{lab.image_name}", cgroup=scope).check()
        with Actor(lab.client, scope) as actor:
            tcp_connect(actor, NAMELESS)
            actor.resolve("notallowed.registry.test")
            tcp_connect(actor, topology.NOTALLOWED)
        file = daemon.policy_file

        wait_line(daemon, 0, lambda line: line.get("address") == topology.NOTALLOWED, "what came last")
        found: dict[str, Any] = json.loads(ask(lab, "suggest", "--policy", str(file), "--json").stdout)
        assert [its["verdict"] for its in found["suggestions"]] == ["would-deny"] * 2
        (withheld,) = found["withheld"]
        assert withheld["why"] == "the policy denies it, by notallowed.registry.test (policy.yaml:6)"
        shown = ask(lab, "suggest", "--policy", str(file)).stdout
        assert sorted(lines_of(shown)) == sorted(
            [
                "  - host: blocked.registry.test",
                f"    private: [{topology.BLOCKED}]",
                f"  - address: {NAMELESS}",
            ]
        )
        assert daemon.terminate() == 0
        # Nobody runs now who could be asked.
        assert lines_of(ask(lab, "suggest", "--policy", str(file)).stdout) == lines_of(shown)
        enforced = POLICY.replace("mode: audit", "mode: enforce") + shown
    file.write_text(enforced)
    assert len(load_policy(file).registries) == 3
    with governed(lab, enforced, scopes=[scope]):
        lab.client.pull(f"blocked.registry.test/{lab.image_name}", cgroup=scope).check()
        with Actor(lab.client, scope) as actor:
            tcp_connect(actor, NAMELESS)
            actor.resolve("notallowed.registry.test")
            with pytest.raises(PermissionError):
                tcp_connect(actor, topology.NOTALLOWED)

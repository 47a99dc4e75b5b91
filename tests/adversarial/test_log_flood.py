"""Attacks on whoever reads the log: so many refusals, each of them another one, that a disk would be full of
their lines."""

from __future__ import annotations

import json
import signal

from tests.adversarial.actor import Actor
from tests.adversarial.field import ScopedDaemon
from tests.lab.lab import Lab

FEW = 2_000
MANY = 6_000
BURST = 20
POLICY = f"""\
version: 1
registries: [{{ host: allowed.registry.test, private: true }}]
refusals: {{ responder: off }}
resolvers: [{Lab.resolver}]
log: {{ burst: {BURST}, lines_per_minute: 1, report_seconds: 1 }}
"""


def test_refusals(lab: Lab) -> None:
    """One source that varies what it connects to, then one that varies its name as well. What has no line is
    counted, to the last one, and another scope has its lines meanwhile."""
    noisy, calm = lab.new_cgroup("noisy"), lab.new_cgroup("not-noisy")
    with ScopedDaemon(lab, POLICY, scopes=[noisy, calm]) as daemon:
        with Actor(lab.client, noisy) as flooding, Actor(lab.client, calm) as other:
            assert flooding.call("scatter", "198.18", 0, FEW) == FEW
            flooding.start("scatter", "198.19", MANY, MANY)
            assert other.call("scatter", "198.51", 0, 1) == 1
            assert flooding.finish() == MANY
        assert daemon.signal(signal.SIGTERM) == 0
        lines = daemon.lines()
    total = FEW + MANY + 1
    refusals = [line for line in lines if line["event"] == "denied"]
    by_scope = {
        scope: [line for line in refusals if scope in line["scope"]] for scope in ("/noisy", "/not-noisy")
    }
    assert len(by_scope["/not-noisy"]) == 1
    # Ten times what one source may have, however many names it takes.
    assert BURST < len(by_scope["/noisy"]) <= 10 * BURST + 10
    counters, log = lines[-1]["counters"], lines[-1]["log"]
    assert counters["denied-unknown-address"] == total
    assert len(refusals) + log["suppressed"] + log["repeated"] + log["lost"] == total
    reports = [line for line in lines if line["event"] == "suppressed"]
    assert sum(line["count"] for line in reports) == log["suppressed"]
    assert any(line.get("process", "").startswith("python") for line in reports)
    assert any(line.get("sources", 0) > 100 for line in reports)
    lost = [line for line in lines if line["event"] == "events-lost"]
    assert sum(line["count"] for line in lost) == log["lost"]
    assert len(json.dumps(lines)) < 300_000

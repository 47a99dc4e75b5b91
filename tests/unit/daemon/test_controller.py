"""What the controller makes of its parts, without a kernel."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from ram_ebpf.daemon.authorizing import Authorizing
from ram_ebpf.daemon.program_settings import settings_of
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.dns import seeding
from ram_ebpf.policy.loader import default_policy
from ram_ebpf.policy.recognition import Unknown
from ram_ebpf.policy.terms import STRICT, Terms

from .running import RECOGNISING, Lookups, Running, eventually, judged_by, policy_of


def test_plugin_that_cannot_be_served(running: Running, tmp_path: Path) -> None:
    """What is enforced in the kernel goes on, and an engine that is told to ask refuses by itself."""
    (tmp_path / "plugins").write_text("a file")
    policy = policy_of("docker: { authorization: true }\n")
    running.controller._authorizing = Authorizing(
        policy, judged_by(policy), lambda cgroup: None, directory=tmp_path / "plugins"
    )
    running.controller._begin_authorizing()
    assert [line["event"] for line in running.log] == ["no-plugin"]
    assert running.controller._plugin() == {}


def test_refused_requests_are_told(running: Running) -> None:
    policy = policy_of("docker: { authorization: true }\n")
    running.controller._authorizing = plugin = Authorizing(policy, judged_by(policy), lambda cgroup: None)
    plugin.answer(b'{"RequestMethod": "POST", "RequestUri": "/images/ghcr.io/x/push"}', 0)
    running.controller._tell_of_requests()
    assert [(line["event"], line["reason"]) for line in running.log] == [("denied", "denied-image")]
    assert running.controller._request_counters() == {"denied-image": 1}


def test_settings() -> None:
    recognising = Settings(
        unknown=abi.Unknown.PROBE, registry_ports=(5000,), asked_ports=(80, 443, 8080, 8443)
    )
    assert settings_of(default_policy()) == recognising
    policy = policy_of(
        "mode: audit\n"
        "recognition: {unknown: deny, registry_ports: [], unknown_ports: [443]}\n"
        "dns: {grace_seconds: 7, minimum_ttl_seconds: 2, maximum_ttl_seconds: 9, allowed_names_only: true}\n"
    )
    assert settings_of(policy) == Settings(
        abi.Mode.AUDIT,
        grace=7,
        minimum_ttl=2,
        maximum_ttl=9,
        allowed_names_only=True,
        unknown=abi.Unknown.DENY,
        asked_ports=(443,),
    )


def test_names_are_asked_again_before_the_policys_longest_time_is_over(
    lookups: Lookups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """maximum_ttl_seconds shortens what a resolver allows, so it must shorten the pause too."""
    monkeypatch.setattr(seeding, "_SHORTEST_PAUSE", 0.01)
    learner = Running(
        policy_of("dns: {grace_seconds: 0, maximum_ttl_seconds: 1}\n")
    ).controller._concerned.learner
    learner.start()
    try:
        assert learner.wait_first_round(5)
        assert eventually(lambda: len(lookups) >= 2, 1.5)
    finally:
        learner.stop()


# --- where registries are recognised


@pytest.mark.parametrize("unknown", Unknown)
@pytest.mark.parametrize(
    "terms", [(STRICT,), (RECOGNISING,), (STRICT, RECOGNISING)], ids=["strict", "registries", "both"]
)
@pytest.mark.usefixtures("lookups")
def test_who_asks(terms: Sequence[Terms], unknown: Unknown) -> None:
    made = Running(policy_of(f"recognition: {{ unknown: {unknown.value} }}\n"), terms=terms)
    made.controller._concerned.learner.stop()
    asks = made.controller._concerned.asker is not None
    assert asks == (RECOGNISING in terms and unknown is not Unknown.ALLOW)
    postures = [view.posture for view in made.plane.views]
    assert postures == [abi.Posture[each.posture.name] for each in terms]


@pytest.mark.usefixtures("lookups")
def test_who_asks_no_more_has_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often reloads begin and end it."""
    before = set(threading.enumerate())
    made = Running(policy_of(""), terms=(RECOGNISING,))
    made.controller._concerned.learner.stop()
    for unknown in ("allow", "probe") * 3:
        made.controller._policy = policy_of(f"recognition: {{ unknown: {unknown} }}\n")
        made.controller._make_asker()

    def askers() -> int:
        new = set(threading.enumerate()) - before
        return sum(thread.name.startswith("asker-") for thread in new)

    assert eventually(lambda: askers() == 4)
    made.controller._rules = {STRICT: next(iter(made.controller._rules.values()))}
    made.controller._make_asker()
    assert eventually(lambda: askers() == 0)

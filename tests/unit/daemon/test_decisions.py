"""Decisions by reason and verdict, over modes that change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ram_ebpf.daemon.decisions import Decisions, verdict_of
from ram_ebpf.dataplane.abi import Mode, Reason, Verdict

VERDICT_H = Path(__file__).resolve().parents[3] / "bpf" / "lib" / "verdict.h"


def found(decisions: Decisions, mode: Mode, counters: dict[Reason, int]) -> dict[tuple[str, ...], float]:
    return {sample.labels: sample.value for sample in decisions.samples(mode, counters) if sample.value}


def test_one_mode() -> None:
    counters = {Reason.ALLOWED_LEARNED: 5, Reason.DENIED_PORT: 3, Reason.DNS_LEARNED: 2}
    samples = list(Decisions().samples(Mode.ENFORCE, counters))
    assert {sample.labels: sample.value for sample in samples if sample.value} == {
        ("allowed-learned", "allow"): 5,
        ("denied-port", "deny"): 3,
        ("dns-learned",): 2,
    }
    reasons = {sample.labels[0] for sample in samples}
    assert reasons == {reason.slug for reason in Reason if reason is not Reason.NONE}


def test_a_mode_that_changes_twice() -> None:
    """No counter ever falls."""
    decisions = Decisions()
    decisions.end_mode(Mode.AUDIT, {Reason.DENIED_PORT: 3, Reason.ALLOWED_OWN: 1})
    counters = {Reason.DENIED_PORT: 10, Reason.ALLOWED_OWN: 4}
    assert found(decisions, Mode.ENFORCE, counters) == {
        ("denied-port", "would-deny"): 3,
        ("denied-port", "deny"): 7,
        ("allowed-own", "allow"): 4,
    }
    decisions.end_mode(Mode.ENFORCE, counters)
    assert found(decisions, Mode.AUDIT, {Reason.DENIED_PORT: 11, Reason.ALLOWED_OWN: 4}) == {
        ("denied-port", "would-deny"): 4,
        ("denied-port", "deny"): 7,
        ("allowed-own", "allow"): 4,
    }


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.slug)
def test_verdicts_are_those_of_the_kernel(reason: Reason) -> None:
    """Read out of ram_is_denied(), whose ranges and single reasons are all that there is."""
    body = (
        VERDICT_H.read_text(encoding="utf-8").split("bool ram_is_denied(u32 reason)", 1)[1].split("}", 1)[0]
    )
    ranges = re.findall(r">= RAM_REASON_(\w+) && reason <= RAM_REASON_(\w+)", body)
    single = re.findall(r"== RAM_REASON_(\w+)", body)
    assert (len(ranges), len(single)) == (2, 2)
    denied = reason.name in single or any(Reason[a] <= reason <= Reason[b] for a, b in ranges)
    assert reason.is_denied is denied
    assert verdict_of(reason, Mode.ENFORCE) is (
        Verdict.DENY if denied else Verdict.ALLOW if reason.is_decision else Verdict.NONE
    )

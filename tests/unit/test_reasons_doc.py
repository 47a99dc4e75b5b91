"""Whoever reads a reason in the log finds in docs/reasons.md what caused it and what cures it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ram_ebpf.authorization.judge import RequestReason
from ram_ebpf.dataplane.abi import Reason

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "reasons.md"
_HEADING = re.compile(r"^#+ +`?([a-z]+(?:-[a-z]+)+)`?$", re.MULTILINE)
# A sentence ends where a line ends too, or another begins; not in `ram_ebpf.policy` or 3.1. Clauses parted by
# a semicolon tell two things as well.
_SENTENCE_END = re.compile(r"[.;](?=\s|$)")
REASONS = [reason for reason in Reason if reason is not Reason.NONE]


@pytest.fixture(scope="module")
def sections() -> dict[str, str]:
    """The text below each heading that looks like a reason."""
    parts = _HEADING.split(DOCUMENT.read_text(encoding="utf-8"))
    found = [part.strip() for part in parts[1:]]
    assert len(set(found[::2])) == len(found[::2]), "a reason has two sections"
    return {
        slug: re.split(r"^#", text, flags=re.MULTILINE)[0]
        for slug, text in zip(found[::2], found[1::2], strict=True)
    }


def test_each_reason_has_a_section_and_each_section_a_reason(sections: dict[str, str]) -> None:
    reasons = {reason.slug for reason in REASONS} | {reason.value for reason in RequestReason}
    assert set(sections) == reasons
    assert len(reasons) == len(REASONS) + len(RequestReason)


def test_each_section_tells_cause_and_cure(sections: dict[str, str]) -> None:
    too_short = [slug for slug, text in sections.items() if len(_SENTENCE_END.findall(text)) < 2]
    assert not too_short, "a sentence of cause and one of cure are missing"

"""A sentence for each reason."""

from __future__ import annotations

import string

import pytest

from ram_ebpf.daemon.reasons import SENTENCES, explain
from ram_ebpf.dataplane.abi import Reason

REASONS = [reason for reason in Reason if reason is not Reason.NONE]


def sentence(
    reason: Reason,
    host: str = "ghcr.io",
    rule: str = "ghcr.io (ghcr)",
    not_listed: bool = True,
    denied_by: str | None = None,
) -> str:
    return explain(reason, host=host, port=8443, rule=rule, not_listed=not_listed, denied_by=denied_by)


def test_each_has_one() -> None:
    assert set(SENTENCES) == set(REASONS)


def test_no_two_are_the_same() -> None:
    assert len(set(SENTENCES.values())) == len(SENTENCES)


@pytest.mark.parametrize("reason", REASONS)
def test_form(reason: Reason) -> None:
    text = SENTENCES[reason]
    assert text == text.strip()
    assert not text.endswith(".")  # the line goes on behind it
    assert {field for _, field, _, _ in string.Formatter().parse(text) if field} <= {
        "host",
        "port",
        "rule",
        "name",
    }
    for not_listed in (True, False):
        assert "{" not in sentence(reason, not_listed=not_listed)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            Reason.ALLOWED_LEARNED,
            "a trusted resolver gave this address for ghcr.io; allowed by ghcr.io (ghcr)",
        ),
        (Reason.DENIED_PORT, "ghcr.io is allowed by ghcr.io (ghcr), but not on port 8443"),
        (Reason.DENIED_UNKNOWN_ADDRESS, "ghcr.io is not in the policy"),
        (
            Reason.DENIED_EXPIRED,
            "the answer that allowed this address has expired; look ghcr.io up again",
        ),
        (
            Reason.DENIED_QUERY_NAME,
            "ghcr.io is not in the policy, and other names may not be asked for",
        ),
        (
            Reason.DENIED_PRIVATE_ADDRESS,
            "ghcr.io is allowed by ghcr.io (ghcr), but this address is a private one; "
            "write private: true there if that is meant",
        ),
        (Reason.DNS_NOT_LISTED, "ghcr.io is not in the policy"),
        (
            Reason.DNS_PRIVATE_ADDRESS,
            "ghcr.io has only private addresses, which ghcr.io (ghcr) does not expect",
        ),
        (Reason.NONE, "none"),
    ],
)
def test_sentences(reason: Reason, expected: str) -> None:
    assert sentence(reason) == expected


def test_an_address_that_no_name_was_given_for() -> None:
    assert sentence(Reason.DENIED_UNKNOWN_ADDRESS, host="192.0.2.1", rule="", not_listed=False) == (
        "no trusted DNS reply gave this address for an allowed name"
    )


OF_THE_NAME = {
    Reason.DENIED_UNKNOWN_ADDRESS,
    Reason.DNS_NOT_LISTED,
    Reason.DENIED_QUERY_NAME,
    Reason.DENIED_REGISTRY,
    Reason.DNS_RECOGNISED,
}


@pytest.mark.parametrize("reason", REASONS)
def test_a_name_that_the_policy_denies(reason: Reason) -> None:
    """The rule that denies it is named where the name is the cause, and nowhere else."""
    text = sentence(reason, denied_by="*.io (policy.yaml:7)")
    if reason in OF_THE_NAME:
        assert text == "ghcr.io is denied by *.io (policy.yaml:7)"
    else:
        assert text == sentence(reason)


def test_without_a_rule() -> None:
    assert sentence(Reason.ALLOWED_ADDRESS, rule="") == "the address is allowed by the policy"


def test_braces_of_a_name_are_nothing_special() -> None:
    assert sentence(Reason.DNS_NOT_LISTED, host="{rule}{0}{") == "{rule}{0}{ is not in the policy"
    assert sentence(Reason.DENIED_PORT, host="a{port}", rule="b{host}") == (
        "a{port} is allowed by b{host}, but not on port 8443"
    )

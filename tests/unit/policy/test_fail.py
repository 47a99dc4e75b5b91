"""`fail:` and `lease_seconds:`, what it means that the daemon is gone."""

from __future__ import annotations

import pytest

from ram_ebpf.daemon.program_settings import settings_of
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.fail import DEFAULT_LEASE, Fail
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.model import Policy


def policy(text: str) -> Policy:
    return parse_policy(f"version: 1\nregistries: [docker-hub]\n{text}\n".encode(), "p.yaml")


@pytest.mark.parametrize(
    ("text", "fail", "lease"),
    [
        ("", Fail.CLOSED, None),
        ("fail: closed", Fail.CLOSED, None),
        ("fail: open", Fail.OPEN, DEFAULT_LEASE),
        ("fail: open\nlease_seconds: 60", Fail.OPEN, 60),
    ],
)
def test_values(text: str, fail: Fail, lease: int | None) -> None:
    made = policy(text)
    assert (made.fail, made.lease) == (fail, lease)
    assert settings_of(made).lease == (lease or 0)


def test_default() -> None:
    assert default_policy().lease is None


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("fail: shut", "3: fail: 'shut' is not one of the choices, write closed or open"),
        (
            "fail: open\nlease_seconds: 5",
            "4: lease_seconds: the number 5 is not a number of seconds for this",
        ),
        ("lease_seconds: 60", "lease_seconds is for fail: open, and without that enforcement stays for ever"),
        ("fail: closed\nlease_seconds: 60", "remove it, or write fail: open"),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        policy(text)
    assert error in str(caught.value)

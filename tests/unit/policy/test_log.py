"""`log:`, how many lines the log gets."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.log import LogOptions
from ram_ebpf.policy.refusals import Switch

HEAD = "version: 1\nregistries: [docker-hub]\n"


def log(text: str) -> LogOptions:
    return parse_policy(f"{HEAD}log: {text}\n".encode(), "p.yaml").log


def test_default() -> None:
    usual = LogOptions(limit=Switch.ON, lines_per_minute=60, burst=100, report_seconds=60)
    assert default_policy().log == usual
    assert log("{}") == usual


def test_values() -> None:
    text = "{ limit: off, lines_per_minute: 1, burst: 60000, report_seconds: 3600 }"
    assert log(text) == LogOptions(limit=Switch.OFF, lines_per_minute=1, burst=60000, report_seconds=3600)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("off", "3: log: 'off' where a mapping belongs, write log: { lines_per_minute: 60 }"),
        ("{ rate: 5 }", "3: log.rate: 'rate' is not a known key, the keys known here: limit, lines_per"),
        ("{ bursts: 5 }", "3: log.bursts: 'bursts' is not a known key, did you mean burst?"),
        ("{ limit: false }", "3: log.limit: false is not one of the choices, write on or off"),
        (
            "{ burst: 0 }",
            "3: log.burst: the number 0 is not a number of lines for this, write a number from 1",
        ),
        ('{ lines_per_minute: "60" }', "3: log.lines_per_minute: '60' is text, write the number alone: 60"),
        ("{ report_seconds: 3601 }", "3: log.report_seconds: the number 3601 is not a number of seconds"),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        log(text)
    assert error in str(caught.value)

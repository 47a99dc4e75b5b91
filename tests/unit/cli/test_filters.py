"""Filters of `ram-ebpf events`."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from ram_ebpf.cli.filters import Filter, add_options

RECORD: dict[str, Any] = {
    "reason": "name-mismatch",
    "host": "cdn.Allowed.example",
    "name": "evil.example",
    "address": "203.0.113.7",
    "scope": "engine docker",
    "process": "dockerd",
}


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        ("", True),
        ("--name evil.example", True),
        ("--name *.EXAMPLE", True),
        ("--name 203.0.113.*", True),
        ("--name other.test --name cdn.*", True),
        ("--name other.test", False),
        ("--reason name-*", True),
        ("--reason denied-*", False),
        ("--scope engine?docker --process dockerd", True),
        ("--scope engine?docker --process podman", False),
        ("--process [", False),
    ],
)
def test_filter(words: str, matches: bool) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    assert Filter.of(parser.parse_args(words.split())).matches(RECORD) is matches


def test_what_is_not_known() -> None:
    """A kernel that cannot tell the process."""
    record = {key: value for key, value in RECORD.items() if key != "process"}
    assert not Filter(processes=("*",)).matches(record | {"process": None})
    assert not Filter(processes=("docker*",)).matches(record)
    assert Filter(hosts=("evil*",)).matches(record)

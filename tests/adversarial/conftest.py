"""The lab, and ram-ebpf on its client for all attacks of one file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversarial.field import Field, governed
from tests.lab.fixtures import lab
from tests.lab.lab import Lab

__all__ = ["field", "lab", "policy"]

POLICY = """\
version: 1
registries:
  - host: allowed.registry.test
    private: true
refusals:
  responder: off
resolvers: [{resolver}]
"""


@pytest.fixture(scope="module")
def policy() -> str:
    """The policy under attack; a file that needs another one has a fixture of its own."""
    return POLICY.format(resolver=Lab.resolver)


@pytest.fixture(scope="module")
def field(lab: Lab, policy: str) -> Iterator[Field]:
    """Attackers inside and outside the scope."""
    with governed(lab, policy, "--log-dns") as daemon, Field(lab, daemon) as result:
        yield result

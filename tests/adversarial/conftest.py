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
resolvers: [{resolver}]
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is for a guest, unless this is one's run or it is asked for by -m."""
    if "guest" in config.option.markexpr or config.pluginmanager.hasplugin("tests.kernels.selection"):
        return
    left_out = [item for item in items if item.get_closest_marker("guest")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="module")
def policy() -> str:
    """The policy under attack; a file that needs another one has a fixture of its own."""
    return POLICY.format(resolver=Lab.resolver)


@pytest.fixture(scope="module")
def field(lab: Lab, policy: str) -> Iterator[Field]:
    """Attackers inside and outside the scope."""
    with governed(lab, policy, "--log-dns") as daemon, Field(lab, daemon) as result:
        yield result

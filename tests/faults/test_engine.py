"""A real dockerd is killed and started again, while it is governed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adversarial.field import governed
from tests.lab.docker import Docker
from tests.lab.lab import Lab

from .conftest import Extent
from .instances import policy
from .traffic import RESOLVER, FarEnds, Traffic


@pytest.mark.long
def test_restarted(lab: Lab, ends: FarEnds, extent: Extent, tmp_path: Path) -> None:
    """Others in its control group do not notice, and its pulls are what they were."""
    text = policy().replace(
        "registries:\n", "registries:\n  - host: allowed.registry.test\n    private: true\n"
    )
    text = text.replace(f"resolvers: [{RESOLVER}]", f"resolvers: [{RESOLVER}, {Lab.resolver}]")
    directory = tmp_path / "docker"
    directory.mkdir()
    with Docker(lab, directory, "restarted") as docker:
        with governed(lab, text, scopes=[docker.cgroup]), Traffic(lab, ends, docker.cgroup) as traffic:
            for _ in range(extent.of(1, 5)):
                docker.pull(f"allowed.registry.test/{lab.image_name}").check()
                refused = docker.pull(f"blocked.registry.test/{lab.image_name}")
                assert "operation not permitted" in refused.stderr, refused
                docker.kill()
                docker.start_again()
            docker.pull(f"allowed.registry.test/{lab.image_name}").check()
            refused = docker.pull(f"blocked.registry.test/{lab.image_name}")
            assert "operation not permitted" in refused.stderr, refused
            traffic.finish().assert_right()

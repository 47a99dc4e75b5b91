"""Cgroups of units that are going to be started."""

from __future__ import annotations

from pathlib import Path

from ram_ebpf.policy.scope import Engine
from ram_ebpf.scopes.ahead import make_ahead
from ram_ebpf.scopes.engines import EngineTarget
from ram_ebpf.scopes.target import CgroupTarget
from ram_ebpf.scopes.unit import UnitTarget


def test_made(tmp_path: Path) -> None:
    """Of installed units alone, each once, and none that is there."""
    mount, files = tmp_path / "cgroup", tmp_path / "units"
    (mount / "system.slice" / "containerd.service").mkdir(parents=True)
    files.mkdir()
    for unit in ("docker.service", "containerd.service"):
        (files / unit).touch()
    targets = [
        EngineTarget(Engine.ALL, mount),
        UnitTarget("docker.service", mount),
        CgroupTarget(mount / "other"),
    ]
    assert list(make_ahead(targets, mount, [files])) == [mount / "system.slice" / "docker.service"]
    assert list(make_ahead(targets, mount, [files])) == []
    assert sorted(path.name for path in (mount / "system.slice").iterdir()) == [
        "containerd.service",
        "docker.service",
    ]

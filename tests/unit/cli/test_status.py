"""`ram-ebpf status` in words; with a daemon it is tested in tests/lab/test_status.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ram_ebpf.cli.main import main
from tests.unit.instance import replying

OLD_SCOPE: dict[str, Any] = {
    "scope": "engine docker",
    "posture": "strict",
    "registries": 0,
    "cgroups": ["/sys/fs/cgroup/system.slice/docker.service"],
    "devices": [],
    "learned": 1,
}
OLD: dict[str, Any] = {
    "version": "0.0.9",
    "mode": "enforce",
    "policy": "/etc/ram-ebpf/policy.yaml",
    "scopes": [OLD_SCOPE],
    "counters": {},
}
NEW: dict[str, Any] = {
    **OLD,
    "digest": "5f2b7c01d9ae0000",
    "policy_version": 1,
    "resolvers": ["10.0.0.53:53"],
    "kernel": {"release": "6.1.0", "features": []},
    "scopes": [{**OLD_SCOPE, "rules": {"names": 11, "addresses": 1}}],
}


def lines(
    answer: dict[str, Any],
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    monkeypatch.setattr("ram_ebpf.daemon.control.ask_all.__defaults__", (directory, 5.0))
    with replying(directory, lambda request: answer):
        assert main(["status"]) == 0
    return capsys.readouterr().out.splitlines()


def test_rules_and_the_policys_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lines(NEW, tmp_path, monkeypatch, capsys)
    assert found[1] == "  policy version 1, SHA-256 5f2b7c01d9ae; resolvers: 10.0.0.53:53"
    assert "  engine docker (strict): 12 rules, 1 learned entry" in found


def test_an_older_instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which says nothing of these."""
    assert lines(OLD, tmp_path, monkeypatch, capsys)[1:] == [
        "  engine docker (strict): 1 learned entry",
        "    /sys/fs/cgroup/system.slice/docker.service",
    ]

"""The package in a root where nothing runs: installed by apt with all that it depends on, and purged."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ram_ebpf import __version__

from . import roots
from .conftest import Package
from .roots import Layer

pytestmark = pytest.mark.timeout(1800)

# What apt and dpkg keep for themselves, and what they make anew whatever is installed.
_THEIRS = ("var/lib/dpkg/", "var/lib/apt/", "var/cache/", "var/log/", "etc/ld.so.cache")


def files(root: Path) -> set[str]:
    """All there is, by its path."""
    found = set()
    for directory, folders, names in os.walk(root):
        for name in (*folders, *names):
            path = str(Path(directory, name).relative_to(root))
            if not path.startswith(_THEIRS):
                found.add(path)
    return found


def test_lintian_has_nothing_to_say(package: Package) -> None:
    assert [line for line in package.lintian.splitlines() if line[:2] in ("E:", "W:")] == []


def test_installed_and_purged(package: Package, tmp_path: Path) -> None:
    with Layer(roots.host(package.suite), tmp_path / "layer") as layer:
        (layer.root / "tmp" / package.file.name).write_bytes(package.file.read_bytes())
        layer.apt("update")
        # What it depends on comes first, and stays: those packages are not ours.
        layer.apt("satisfy", layer.run(["dpkg-deb", "-f", f"/tmp/{package.file.name}", "Depends"]).stdout)
        before = files(layer.root)
        layer.apt("install", f"/tmp/{package.file.name}")

        assert layer.run(["ram-ebpf", "--version"]).stdout == f"ram-ebpf {__version__}\n"
        checked = layer.run(["ram-ebpf", "check", "/etc/ram-ebpf/policy.yaml"]).stdout
        assert checked.startswith("/etc/ram-ebpf/policy.yaml: ok: ")
        assert checked.rstrip().endswith("mode audit")
        told = layer.run(["/usr/libexec/docker/cli-plugins/docker-ram", "docker-cli-plugin-metadata"]).stdout
        assert '"SchemaVersion"' in told
        assert "bcc" in layer.run(["/usr/lib/ram-ebpf/bin/python", "-c", "import bcc; print(bcc)"]).stdout
        enabled = layer.root / "etc/systemd/system/multi-user.target.wants/ram-ebpf.service"
        assert enabled.is_symlink()
        assert (layer.root / "etc/systemd/system/basic.target.wants/ram-ebpf-boot.service").is_symlink()

        # What an administrator has changed is not touched by an upgrade or by a removal.
        policy = layer.root / "etc/ram-ebpf/policy.yaml"
        policy.write_text("# ours\nversion: 1\nregistries: [ghcr]\n", encoding="utf-8")
        layer.apt("reinstall", f"/tmp/{package.file.name}")
        assert policy.read_text(encoding="utf-8").startswith("# ours\n")
        layer.apt("remove", "ram-ebpf")
        assert policy.read_text(encoding="utf-8").startswith("# ours\n")
        assert not (layer.root / "usr/lib/ram-ebpf").exists()

        (layer.root / "var/lib/ram-ebpf/ca").mkdir(parents=True)
        said = layer.apt("purge", "ram-ebpf")
        assert "ram-ebpf: purged; " in said
        assert sorted(files(layer.root) ^ before) == []
        assert not (layer.root / "var/cache/ram-ebpf").exists()

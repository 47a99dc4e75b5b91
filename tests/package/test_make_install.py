"""`make install` and `make uninstall`, in a root where nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ram_ebpf import __version__

from . import building, roots
from .roots import Layer
from .test_install import files

pytestmark = pytest.mark.timeout(1800)

_OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}


@pytest.mark.parametrize("suite", sorted(roots.SUITES))
def test_installed_and_uninstalled(suite: str, tmp_path: Path) -> None:
    with Layer(roots.builder(suite), tmp_path / "layer") as layer:
        building.copy_sources(layer, suite)
        install = ["/source/packaging/install.sh", "install"]
        before = files(layer.root)

        assert "systemctl enable --now ram-ebpf" in layer.run(install, _OFFLINE).stdout
        assert layer.run(["ram-ebpf", "--version"]).stdout == f"ram-ebpf {__version__}\n"
        unit = (layer.root / "usr/local/lib/systemd/system/ram-ebpf.service").read_text(encoding="utf-8")
        assert "ExecStart=/usr/local/bin/ram-ebpf run --policy /etc/ram-ebpf/policy.yaml\n" in unit
        plugin = layer.root / "usr/local/libexec/docker/cli-plugins/docker-ram"
        assert str(plugin.readlink()) == "/usr/local/lib/ram-ebpf/bin/docker-ram"

        policy = layer.root / "etc/ram-ebpf/policy.yaml"
        policy.write_text("# ours\nversion: 1\nregistries: [ghcr]\n", encoding="utf-8")
        layer.run(install, _OFFLINE)
        assert policy.read_text(encoding="utf-8").startswith("# ours\n")

        said = layer.run(["/source/packaging/install.sh", "uninstall"]).stdout
        assert "/etc/ram-ebpf" in said
        assert sorted(files(layer.root) - before) == ["etc/ram-ebpf", "etc/ram-ebpf/policy.yaml"]


def test_into_a_directory(tmp_path: Path) -> None:
    """As packages are made: what is in there is for another place."""
    with Layer(roots.builder("trixie"), tmp_path / "layer") as layer:
        building.copy_sources(layer, "trixie")
        layer.run(
            ["/source/packaging/install.sh", "install"],
            {**_OFFLINE, "DESTDIR": "/stage", "PREFIX": "/opt/acme"},
        )
        stage = layer.root / "stage"
        assert sorted(path.name for path in stage.iterdir()) == ["etc", "opt"]
        program = (stage / "opt/acme/lib/ram-ebpf/bin/ram-ebpf").read_text(encoding="utf-8")
        assert program.startswith("#!/opt/acme/lib/ram-ebpf/bin/python -IS\n")
        assert not [path for path in stage.rglob("*") if b"/stage" in _content(path)]


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() and not path.is_symlink() else b""

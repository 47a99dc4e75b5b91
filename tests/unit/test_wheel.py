"""The C sources are in the wheel, and are found there. (Building one in a test would take too long.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ram_ebpf.dataplane import source

ROOT = Path(__file__).resolve().parents[2]


def section(name: str) -> dict[str, str]:
    """The plain `key = "text"` lines of one section of pyproject.toml; Python 3.10 has no reader for it."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    body = text.split(f"[{name}]\n", 1)[1].split("\n[", 1)[0]
    return dict(re.findall(r'^"?([\w.-]+)"? = "(.*)"$', body, re.MULTILINE))


def test_wheel_contains_the_sources() -> None:
    """Into the package itself, not beside it: site-packages belongs to everybody."""
    assert section("tool.hatch.build.targets.wheel.force-include")["bpf"] == "ram_ebpf/bpf"


def test_found_beside_the_package_in_a_checkout() -> None:
    assert source.source_directory() == ROOT / "bpf"


def test_found_in_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site-packages" / "ram_ebpf"
    monkeypatch.setattr(source, "__file__", str(package / "dataplane" / "source.py"))
    (package / "bpf").mkdir(parents=True)
    (package / "bpf" / "abi.h").touch()
    # Whatever lies beside the package there is not ours.
    (package.parent / "bpf").mkdir()
    (package.parent / "bpf" / "abi.h").touch()
    assert source.source_directory() == package / "bpf"

"""What is said about the compiler without loading it."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from ram_ebpf.dataplane.compiler import bcc_version


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("__version__ = '0.26.0'\n", "0.26.0", id="as the binding's build writes it"),
        pytest.param("something else\n", "something else", id="otherwise"),
        pytest.param(None, "unknown", id="missing"),
    ],
)
def test_version_of_the_binding(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, expected: str
) -> None:
    if text is not None:
        (tmp_path / "version.py").write_text(text, encoding="utf-8")
    spec = ModuleSpec("bcc", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert bcc_version() == expected


def test_no_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bcc_version() == ""

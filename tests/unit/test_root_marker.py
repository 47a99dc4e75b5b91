"""Tests that need root fail without it, in words that say what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import conftest


class Item:
    """As much of a pytest.Item as the hooks look at."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.markers: list[str] = []

    def add_marker(self, marker: pytest.MarkDecorator) -> None:
        self.markers.append(marker.name)

    def get_closest_marker(self, name: str) -> str | None:
        return name if name in self.markers else None


def collected(path: str) -> Item:
    item = Item(Path(conftest.__file__).parent / path)
    conftest.mark_root([item])  # type: ignore[list-item]
    return item


@pytest.mark.parametrize("path", ["unit/test_a.py", "unit/policy/test_a.py"])
def test_unit_tests_run_without_root(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    item = collected(path)
    assert item.markers == []
    conftest.pytest_runtest_setup(item)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["dataplane/test_a.py", "test_a.py", "unity/test_a.py", "lab/unit/test_a.py", "a/b/c/test_a.py"]
)
def test_all_others_need_root(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    item = collected(path)
    assert item.markers == ["root"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    conftest.pytest_runtest_setup(item)  # type: ignore[arg-type]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(pytest.fail.Exception, match="this test needs root: run `sudo make test`"):
        conftest.pytest_runtest_setup(item)  # type: ignore[arg-type]

"""A pytest plugin that picks the tests for a guest: tests/dataplane without `heavy`, `core` elsewhere.

Those that change a machine for good (`alone`) only where they are asked for, by `-m alone`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_DATAPLANE = Path(__file__).resolve().parents[1] / "dataplane"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The host tells the guest which files to read, as importing those that it does not need takes long."""
    parser.addoption("--list-files", type=Path, help="write the files with the chosen tests there")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drops the others."""
    alone = "alone" in config.option.markexpr
    chosen = [item for item in items if _is_chosen(item, alone)]
    config.hook.pytest_deselected(items=[item for item in items if not _is_chosen(item, alone)])
    items[:] = chosen


def _is_chosen(item: pytest.Item, alone: bool) -> bool:
    if item.get_closest_marker("alone") is not None:
        return alone
    if item.get_closest_marker("heavy") is not None:
        return False
    return item.path.is_relative_to(_DATAPLANE) or item.get_closest_marker("core") is not None


def pytest_collection_finish(session: pytest.Session) -> None:
    """By now -k and -m have chosen too."""
    target: Path | None = session.config.getoption("--list-files")
    if target is not None:
        target.write_text("".join(f"{path}\n" for path in dict.fromkeys(item.path for item in session.items)))

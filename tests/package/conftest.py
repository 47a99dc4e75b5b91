"""The package of each release."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from . import building, roots


@dataclass(frozen=True)
class Package:
    """A package that was built, and what lintian says of it."""

    suite: str
    file: Path
    lintian: str


@pytest.fixture(scope="session", params=sorted(roots.SUITES))
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Package:
    suite = str(request.param)
    file, said = building.build(suite, tmp_path_factory.mktemp(f"package-{suite}"))
    return Package(suite, file, said)

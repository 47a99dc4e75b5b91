"""The package of a release, built in a root of that release."""

from __future__ import annotations

import subprocess
from pathlib import Path

from . import roots
from .roots import Layer

_SOURCES = (
    "bpf",
    "docs",
    "examples",
    "packaging",
    "ram_ebpf",
    "CHANGELOG.md",
    "README.md",
    "SECURITY.md",
    "pyproject.toml",
)


def copy_sources(layer: Layer, suite: str) -> None:
    """This tree as /source, and as /wheels what of PyPI it may want."""
    tree = layer.root / "source"
    tree.mkdir()
    sources = [str(roots.REPOSITORY / name) for name in _SOURCES]
    subprocess.run(["cp", "-a", *sources, str(tree)], check=True)
    subprocess.run(["cp", "-a", str(roots.wheels(suite)), str(layer.root / "wheels")], check=True)


def build(suite: str, directory: Path) -> tuple[Path, str]:
    """The package, put into a directory, and what lintian says of it."""
    with Layer(roots.builder(suite), directory / "build") as layer:
        copy_sources(layer, suite)
        layer.run(
            ["/source/packaging/deb.sh"],
            {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels", "SOURCE_DATE_EPOCH": "1767225600"},
        )
        (built,) = (layer.root / "source/dist").glob("*.deb")
        said = layer.run(["lintian", f"/source/dist/{built.name}"], check=False).stdout
        target = directory / built.name
        target.write_bytes(built.read_bytes())
    return target, said

"""A root with the package, for a machine that is going to boot."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from . import roots
from .conftest import Package
from .roots import Layer


@contextlib.contextmanager
def installed(package: Package, directory: Path, policy: str) -> Iterator[Layer]:
    """With a policy. The daemon is not started at the boot, but when a test does."""
    with Layer(roots.host(package.suite), directory / "layer") as layer:
        (layer.root / "srv" / package.file.name).write_bytes(package.file.read_bytes())
        layer.apt("update")
        layer.apt("install", f"/srv/{package.file.name}")
        (layer.root / "etc/ram-ebpf/policy.yaml").write_text(policy, encoding="utf-8")
        (layer.root / "etc/systemd/system/multi-user.target.wants/ram-ebpf.service").unlink()
        yield layer

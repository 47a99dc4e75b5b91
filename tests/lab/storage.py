"""Puts an image straight into the files of a registry, without a push, which would take far longer.

The layout is that of the filesystem driver of docker-registry 2 (distribution): blobs by digest, and
per repository small files named `link` that hold the digest of what belongs to it.
"""

from __future__ import annotations

from pathlib import Path

from .image import Image, digest


def add(root: Path, repository: str, tag: str, image: Image) -> None:
    """Add an image to a registry's storage, also while the registry runs."""
    top = root / "docker" / "registry" / "v2"
    for blob in (*image.blobs, image.manifest):
        path = top / "blobs" / "sha256" / _hex(blob)[:2] / _hex(blob) / "data"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blob)
    home = top / "repositories" / repository
    for blob in image.blobs:
        _link(home / "_layers" / "sha256" / _hex(blob), blob)
    manifests = home / "_manifests"
    _link(manifests / "revisions" / "sha256" / _hex(image.manifest), image.manifest)
    _link(manifests / "tags" / tag / "index" / "sha256" / _hex(image.manifest), image.manifest)
    _link(manifests / "tags" / tag / "current", image.manifest)


def _link(directory: Path, blob: bytes) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "link").write_text(digest(blob), encoding="ascii")


def _hex(blob: bytes) -> str:
    return digest(blob).partition(":")[2]

"""A tiny OCI image, made by hand: one layer, a configuration and a manifest."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(blob: bytes) -> str:
    """Return the name that OCI gives to some content."""
    return "sha256:" + hashlib.sha256(blob).hexdigest()


@dataclass(frozen=True)
class Image:
    """The blobs of an image; those other than the manifest by no particular name."""

    manifest: bytes
    blobs: tuple[bytes, ...]


def build(files: Mapping[str, bytes], command: tuple[str, ...]) -> Image:
    """Build an image of these files (path to content), the same bytes every time."""
    tar = _tar(files)
    layer = gzip.compress(tar, compresslevel=1, mtime=0)
    config = _json(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Cmd": list(command)},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _descriptor(_CONFIG_TYPE, config),
            "layers": [_descriptor(_LAYER_TYPE, layer)],
        }
    )
    return Image(manifest, (config, layer))


def hello() -> Image:
    """Build the lab's image: busybox where a static one is installed, else a text."""
    busybox = shutil.which("busybox")
    program = Path(busybox).read_bytes() if busybox else b""
    # One that asks for a dynamic linker could not run alone in an image.
    if program and b"ld-linux" not in program:
        return build({"bin/busybox": program}, ("/bin/busybox", "echo", "hello"))
    return build({"hello.txt": b"hello from the lab\n"}, ("/hello.txt",))


def write_layout(image: Image, directory: Path, tag: str) -> None:
    """Write an OCI image layout, which skopeo names oci:DIRECTORY:TAG."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for blob in (image.manifest, *image.blobs):
        (blobs / digest(blob).partition(":")[2]).write_bytes(blob)
    entry = _descriptor(MANIFEST_TYPE, image.manifest)
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (directory / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    (directory / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [entry]}))


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode = 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest(blob), "size": len(blob)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()

"""The file systems of the tests' machines: a Debian suite's engines and what little they need around them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from . import cache
from .debian import Suite

# dockerd 20.10, 26.1 and what is newest, each with the podman, buildah, skopeo and containerd of its suite.
SUITES = ("bookworm", "trixie", "sid")

NAMED = ("docker.io", "containerd", "runc", "podman", "buildah", "skopeo")
_SYSTEM = (
    "base-files",
    "coreutils",
    "dash",
    "iproute2",
    "mount",
    "netbase",
    "sed",
    "util-linux",
    "busybox-static",
)
_ENGINES = ("docker.io", "containerd", "runc", "iptables", "podman", "buildah", "skopeo", "uidmap")
_MORE = {
    "bookworm": ("slirp4netns", "fuse-overlayfs"),
    "trixie": (
        "docker-cli",
        "docker-buildx",
        "nftables",
        "passt",
        "slirp4netns",
        "fuse-overlayfs",
        "aardvark-dns",
    ),
    "sid": (
        "docker-cli",
        "docker-buildx",
        "nftables",
        "passt",
        "slirp4netns",
        "fuse-overlayfs",
        "aardvark-dns",
    ),
}
# update-alternatives, a script of the package, makes these.
_LINKS = {
    "usr/sbin/iptables": "iptables-nft",
    "usr/sbin/ip6tables": "ip6tables-nft",
    "usr/sbin/iptables-save": "iptables-nft-save",
    "usr/sbin/iptables-restore": "iptables-nft-restore",
    "usr/sbin/ip6tables-save": "ip6tables-nft-save",
    "usr/sbin/ip6tables-restore": "ip6tables-nft-restore",
}
_VERSIONS = "versions.json"


def tree(name: str) -> Path:
    """Return the tree of a suite, which is fetched when it is not there yet. Nobody writes to it."""
    words = (*_SYSTEM, *_ENGINES, *_MORE[name])
    # A changed list is another tree.
    mark = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:8]

    def make(directory: Path) -> None:
        suite = Suite(name)
        packages = suite.plan("install", *words)
        suite.unpack(packages, directory)
        for path, target in _LINKS.items():
            (directory / path).symlink_to(target)
        for path in ("proc", "sys", "dev", "run", "tmp", "root", "home", "opt", "etc", "var/lib", ".old"):
            (directory / path).mkdir(parents=True, exist_ok=True)
        (directory / "tmp").chmod(0o1777)
        (directory / _VERSIONS).write_text(json.dumps(packages, indent=1), encoding="utf-8")

    return cache.once(f"tree-{name}-{mark}", make)


def version(name: str, package: str) -> str:
    """The version of a package in a suite's tree, as short as it is usually told."""
    packages: dict[str, str] = json.loads((tree(name) / _VERSIONS).read_text(encoding="utf-8"))
    return re.sub(r"^\d+:|[+~-].*", "", packages[package])

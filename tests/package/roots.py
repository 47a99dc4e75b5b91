"""Roots of Debian releases, fetched once and never changed: each test has a layer of its own on top."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from tests.engines import cache
from tests.engines.debian import KEYRING, mirror

SUITES = {"bookworm": "3.11", "trixie": "3.13"}
"""With the Python that each has."""

REPOSITORY = Path(__file__).resolve().parents[2]
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# A host without engines. What follows systemd is for the tests, and nothing that ram-ebpf depends on.
_HOST = ("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "dnsmasq-base", "socat")
_BUILD_TOOLS = ("build-essential", "lintian")
_BACKEND = "hatchling>=1.18"


def _mark(*words: str) -> str:
    """A changed list is another root."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:8]


def host(suite: str) -> Path:
    """A host of this release, as it was installed."""

    def make(directory: Path) -> None:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(_HOST)}", f"--keyring={KEYRING}"]
        _call([*command, suite, str(directory), mirror()])
        shutil.rmtree(directory / "var/cache/apt/archives")
        (directory / "var/cache/apt/archives/partial").mkdir(parents=True)
        # No network is in reach of most of what is done in there; apt is given the machine's own names.
        (directory / "etc/resolv.conf").unlink(missing_ok=True)

    return cache.once(f"host-{suite}-{_mark(*_HOST)}", make)


def builder(suite: str) -> Path:
    """The same with what packages are built with: what debian/control wants."""
    control = (REPOSITORY / "packaging/debian/control").read_text(encoding="utf-8")

    def make(directory: Path) -> None:
        with Layer(host(suite), directory.parent / f".layer-{suite}-{os.getpid()}") as layer:
            (layer.root / "control").write_text(control, encoding="utf-8")
            layer.apt("update")
            layer.apt("install", *_BUILD_TOOLS)
            layer.apt("build-dep", "/control", directory=True)
            (layer.root / "control").unlink()
            layer.apt("clean")
            _call(["cp", "-a", f"{layer.root}/.", str(directory)])

    return cache.once(f"builder-{suite}-{_mark(control, *_BUILD_TOOLS, host(suite).name)}", make)


def wheels(suite: str) -> Path:
    """What of PyPI the build may want, so that it needs no network."""
    versions = REPOSITORY / "packaging/versions.txt"

    def make(directory: Path) -> None:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pip += ["--only-binary=:all:", f"--python-version={SUITES[suite]}", "--dest", str(directory)]
        _call([*pip, "--no-deps", "--requirement", str(versions)])
        _call([*pip, _BACKEND])

    return cache.once(f"wheels-{suite}-{_mark(versions.read_text(encoding='utf-8'), _BACKEND)}", make)


class Layer:
    """A root to change, for the time of a `with` block."""

    def __init__(self, below: Path, directory: Path) -> None:
        self._below = below
        self.directory = directory
        self.root = directory / "root"

    def __enter__(self) -> Layer:
        for part in ("root", "upper", "work"):
            (self.directory / part).mkdir(parents=True)
        layers = f"lowerdir={self._below},upperdir={self.directory}/upper,workdir={self.directory}/work"
        _call(["mount", "-t", "overlay", "-o", layers, "overlay", str(self.root)])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _call(["umount", "--recursive", "--lazy", str(self.root)])
        shutil.rmtree(self.directory)

    def run(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in there to its end. RuntimeError with what it said where it fails."""
        # Nothing of the caller's environment: it may name files that are not in there.
        known = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        words = [f"{key}={value}" for key, value in {**known, **(env or {})}.items()]
        argv = ["chroot", str(self.root), "env", "--ignore-environment", *words, *argv]
        return _call(argv, check=check)

    def apt(self, verb: str, *words: str, directory: bool = False, check: bool = True) -> str:
        """Run apt-get in there, with the machine's own resolver; what it said.

        `directory`: the word is a file of control fields, which older versions want in a directory.
        """
        names = self.root / "etc/resolv.conf"
        shutil.copyfile("/etc/resolv.conf", names)
        if directory:
            (source,) = words
            folder = self.root / "build-dep/debian"
            folder.mkdir(parents=True)
            shutil.copyfile(self.root / source.lstrip("/"), folder / "control")
            words = ("/build-dep",)
        try:
            done = self.run(["apt-get", "-qq", "--yes", "--no-install-recommends", verb, *words], check=check)
        finally:
            names.unlink()
            if directory:
                shutil.rmtree(self.root / "build-dep")
        return done.stdout + done.stderr


def _call(argv: Sequence[str], check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if check and done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {said[-2000:]}")
    return done

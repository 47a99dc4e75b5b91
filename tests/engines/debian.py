"""Packages of any Debian suite, fetched by apt with settings of its own and unpacked, not installed.

The machine's sources, lists and packages are neither changed nor asked: the suite's packages get all that
they depend on, down to the C library, since another suite's programs want that suite's libraries.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from . import cache

MIRROR = "RAM_EBPF_ENGINES_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_PLANNED = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", re.MULTILINE)
_MERGED = ("bin", "sbin", "lib", "lib64")


class Suite:
    """One suite, such as trixie, as apt sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        top = cache.once(f"apt-{name}", self._prepare)
        self._apt = (
            "apt-get",
            "-qq",
            *_option("Dir::Etc::sourcelist", top / "sources.list"),
            *_option("Dir::Etc::sourceparts", "-"),
            *_option("Dir::Etc::preferencesparts", "-"),
            *_option("Dir::State::lists", top / "lists"),
            *_option("Dir::State::status", top / "status"),
            *_option("Dir::Cache", top / "cache"),
            *_option("Acquire::Languages", "none"),
            *_option("Acquire::Retries", "3"),
            *_option("APT::Sandbox::User", "root"),  # its usual user may not write here
        )
        if not any((top / "lists").glob("*_Packages*")):
            _call(*self._apt, "update")

    def plan(self, *words: str) -> dict[str, str]:
        """What apt would install for `install PACKAGE…` or `build-dep PACKAGE`: names and versions."""
        return dict(_PLANNED.findall(_call(*self._apt, "--simulate", "--no-install-recommends", *words)))

    def unpack(self, packages: dict[str, str], tree: Path) -> None:
        """Fetch packages and unpack them into a tree; none of their scripts is run."""
        for name in _MERGED:  # what base packages do by a script
            (tree / "usr" / name).mkdir(parents=True, exist_ok=True)
            if not (tree / name).is_symlink():
                (tree / name).symlink_to(f"usr/{name}")
        with tempfile.TemporaryDirectory(dir=tree.parent, prefix=".debs-") as directory:
            words = [f"{name}={version}" for name, version in packages.items()]
            _call(*self._apt, "download", *words, cwd=Path(directory))
            for archive in sorted(Path(directory).glob("*.deb")):
                with subprocess.Popen(
                    ["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE
                ) as source:
                    _call("tar", "-x", "--keep-directory-symlink", "-C", str(tree), stdin=source.stdout)
                if source.returncode:
                    raise OSError(f"{archive.name} cannot be read")

    def source(self, package: str, directory: Path) -> list[Path]:
        """Fetch the archives of a source package."""
        try:
            _call(*self._apt, "source", "--download-only", package, cwd=directory)
        except OSError:
            # Some mirrors lack the description, which is fetched last and not needed: apt has compared the
            # archives with the sums in the signed list.
            if not list(directory.glob("*.debian.tar.*")):
                raise
        return sorted(directory.glob("*.tar.*"))

    def _prepare(self, directory: Path) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True)
        (directory / "status").touch()
        kinds = (f"{kind} [signed-by={KEYRING}] {mirror()} {self.name} main\n" for kind in ("deb", "deb-src"))
        (directory / "sources.list").write_text("".join(kinds), encoding="utf-8")


def mirror() -> str:
    """The archive: the one that this machine uses, when it is a Debian, or what the environment says."""
    if found := os.environ.get(MIRROR):
        return found
    if not KEYRING.exists():
        raise LookupError(f"{KEYRING} is missing: install the package debian-archive-keyring")
    wanted = ("Created-By: Packages", "Origin: Debian", "Component: main")
    for line in _call("apt-get", "indextargets", "--format", "$(REPO_URI) $(LABEL)", *wanted).splitlines():
        uri, _, label = line.partition(" ")
        if label == "Debian":  # not Debian-Security
            return uri
    raise LookupError(f"this machine has no Debian archive in its sources: name one with {MIRROR}")


def _option(name: str, value: object) -> Iterable[str]:
    return "-o", f"{name}={value}"


def _call(*argv: str, cwd: Path | None = None, stdin: object = None) -> str:
    result = subprocess.run(
        argv,
        cwd=cwd,
        stdin=stdin or subprocess.DEVNULL,  # type: ignore[call-overload]
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        said = (result.stderr + result.stdout).strip()
        raise OSError(f"{' '.join(argv)} ended with {result.returncode}: {said[-500:]}")
    return str(result.stdout)

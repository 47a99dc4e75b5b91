"""Programs of Debian packages that must not be installed, unpacked aside instead.

Installing one of these packages starts its service on the machine, and systemd-resolved's even replaces
/etc/resolv.conf. So a package is downloaded by apt-get, which checks its signature, and unpacked below
/var/cache/ram-ebpf/debs, and none of its scripts is run. `python -m tests.lab.servers.aside` does that
beforehand, for a machine that will have no network or a read-only disk, such as the guest of test-kernel.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import re
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab.programs import SEARCH_PATH, MissingProgramError

CACHE = Path("/var/cache/ram-ebpf/debs")
_APT = ("apt-get", "-qq", "-o", "APT::Sandbox::User=root")  # _apt, its usual user, may not write here
_STATUS = Path("/var/lib/dpkg/status")
_PLANNED = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", re.MULTILINE)
_SYSTEMD = "/usr/lib/systemd"

# The packages that may have the program: on Ubuntu 22.04 systemd-resolved is a part of systemd.
PACKAGES = {
    "buildah": ("buildah",),
    "dockerd": ("docker.io",),
    "named": ("bind9",),
    "unbound": ("unbound",),
    "systemd-resolved": ("systemd-resolved", "systemd"),
}


@dataclass(frozen=True)
class Program:
    """A program, and the environment in which it finds its libraries."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)


@functools.cache
def find(name: str) -> Program:
    """Return a program of PACKAGES: the machine's own if it has one, else from the package unpacked aside."""
    installed = shutil.which(name, path=os.pathsep.join([SEARCH_PATH, _SYSTEMD]))
    if installed is not None:
        # A copy: AppArmor goes by the path, and would keep the server to the machine's own files. Not in the
        # lab's directory: below /run no program may be run on many machines.
        return Program(Path(shutil.copy(installed, _directory())))
    errors = []
    for package in PACKAGES[name]:
        try:
            return _search(name, unpack(package, CACHE))
        except (OSError, LookupError) as error:
            errors.append(f"{package}: {error}")
    raise MissingProgramError(f"the lab needs {name} and could not fetch it: {'; '.join(errors)}")


@functools.cache
def of_package(name: str, package: str) -> Program:
    """Return a program of a package unpacked aside, whatever the machine has."""
    return _search(name, unpack(package, CACHE))


@functools.cache
def _directory() -> str:
    path = tempfile.mkdtemp(prefix="ramlab-")
    atexit.register(shutil.rmtree, path)
    return path


def unpack(package: str, cache: Path) -> Path:
    """Return the directory with a package and those of its dependencies that the machine lacks."""
    target = cache / package
    # Libraries of other packages must fit, so a change of what is installed is a reason to ask again.
    if target.exists() and target.stat().st_mtime > _STATUS.stat().st_mtime:
        return _trusted(target)
    try:
        cache.mkdir(mode=0o755, parents=True, exist_ok=True)
        _trusted(cache)
        # Beside its place and moved there whole, as others may fetch the same.
        with tempfile.TemporaryDirectory(dir=cache, prefix=".new-") as directory:
            tree = Path(directory) / "tree"
            tree.mkdir(mode=0o755)
            for archive in _download(package, Path(directory)):
                _call("dpkg-deb", "-x", str(archive), str(tree))
            os.utime(tree)  # dpkg-deb gives it the time of the package's making
            with contextlib.suppress(FileNotFoundError):
                target.rename(Path(directory) / "old")
            with contextlib.suppress(FileExistsError):
                tree.rename(target)
    except OSError:
        # Without a network what was fetched before is better than nothing.
        if not target.exists():
            raise
    return _trusted(target)


def _download(package: str, directory: Path) -> list[Path]:
    try:
        planned = _plan(package)
    except OSError:  # no package lists, or old ones
        _call(*_APT, "update")
        planned = _plan(package)
    try:
        _call(*_APT, "download", *planned, cwd=directory)
    except OSError:
        _call(*_APT, "update")
        _call(*_APT, "download", *_plan(package), cwd=directory)
    return sorted(directory.glob("*.deb"))


def _plan(package: str) -> list[str]:
    said = _call(*_APT, "install", "--simulate", "--reinstall", "--no-install-recommends", package)
    return [f"{name}={version}" for name, version in _PLANNED.findall(said)]


def _call(*argv: str, cwd: Path | None = None) -> str:
    result = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr + result.stdout).strip()
        raise OSError(f"{' '.join(argv)} ended with {result.returncode}: {said[-500:]}")
    return result.stdout


def _trusted(path: Path) -> Path:
    """It is run as root, so nobody else may have written it."""
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
        raise PermissionError(f"{path} is not a directory that only root can write to")
    return path


def _search(name: str, tree: Path) -> Program:
    # Not the script of that name in /etc/init.d.
    found = [path for path in tree.rglob(name) if path.parent.name in ("bin", "sbin", "systemd")]
    if not found:
        raise LookupError(f"it has no program {name}")
    libraries = sorted({str(path.parent) for path in tree.rglob("*.so*")})
    return Program(found[0], {"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {})


def main() -> None:
    """Fetch all."""
    for name in PACKAGES:
        print(find(name).path)


if __name__ == "__main__":
    main()

"""Completes the virtual environment that runs this, so that ram-ebpf works in it.

    python bundle.py SOURCE [--depends FILE]

What the system has in a version that will do is used from there, since the distribution mends its security;
only the rest comes from PyPI, in the versions of versions.txt. With --depends, the Debian packages that are
used are written to a file, for a package's control file.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

# Of the environment's own pip, which every one has at first.
from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.version import Version

_OURS = "ram-ebpf"
_VERSIONS = Path(__file__).with_name("versions.txt")


def canonical(name: str) -> str:
    """As the index of packages writes it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(text: str) -> dict[str, str]:
    """By canonical name."""
    pins = (line.split("==") for line in text.splitlines() if line and not line.startswith("#"))
    return {canonical(name): version for name, version in pins}


def requirements(name: str) -> Iterator[Requirement]:
    """What a distribution that is there needs here and now, without its extras."""
    for text in metadata.distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def is_met(requirement: Requirement) -> bool:
    """Whether there is one that will do, in the environment or the system."""
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(Version(found), prereleases=True)


def walk(name: str, missing: set[str], met: set[str]) -> None:
    """Adds all that a distribution needs, and what that needs, to one of the sets."""
    for requirement in requirements(name):
        needed = canonical(requirement.name)
        if not is_met(requirement):
            missing.add(needed)
        elif needed not in met:
            met.add(needed)
            walk(needed, missing, met)


def install(*what: str) -> None:
    """Into the environment, and nothing beside it."""
    options = ("--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps")
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *what], check=True)


def debian_package(name: str) -> str | None:
    """Whose file the description of a distribution is; None for one in the environment."""
    place = Path(str(getattr(metadata.distribution(name), "_path")))  # noqa: B009 - there is no public name
    if place.is_relative_to(sys.prefix):
        return None
    done = subprocess.run(["dpkg", "--search", str(place)], capture_output=True, text=True, check=True)
    return done.stdout.split(":")[0]


def main() -> int:
    """Installs; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("--depends", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    pins = versions(_VERSIONS.read_text(encoding="utf-8"))
    install(str(arguments.source))
    while True:
        missing: set[str] = set()
        met: set[str] = set()
        walk(_OURS, missing, met)
        if not missing:
            break
        unknown = sorted(missing - pins.keys())
        if unknown:
            print(f"{_VERSIONS} names no version of {', '.join(unknown)}", file=sys.stderr)
            return 1
        install(*(f"{name}=={pins[name]}" for name in sorted(missing)))
    own = sorted(name for name in met if is_bundled(name))
    print(f"bundled: {', '.join(f'{name} {metadata.version(name)}' for name in own) or 'nothing'}")
    if arguments.depends is not None:
        packages = {debian_package(name) for name in met} - {None}
        arguments.depends.write_text(", ".join(sorted(filter(None, packages))) + "\n", encoding="utf-8")
    return 0


def is_bundled(name: str) -> bool:
    """Whether it is in the environment itself."""
    return Path(str(metadata.distribution(name).locate_file(""))).is_relative_to(sys.prefix)


if __name__ == "__main__":
    raise SystemExit(main())

"""Where the programs of clients.py are: on this machine, in a tree of a Debian suite, or among PyPI's.

What is not this machine's is fetched into a temporary directory, with all that it needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.engines.debian import Suite

from .clients import NAME, Client

# Words: the tree, and the command. Only this process and what it starts see these mounts.
_INSIDE = """\
mkdir -p "$0/dev" "$0/proc" "$0/tmp" "$0/root"
mount --rbind /dev "$0/dev" && mount --rbind /proc "$0/proc" && exec chroot "$0" "$@"
"""
_EVERYWHERE = ("coreutils", "dash")


@dataclass(frozen=True)
class Place:
    """What is in front of a client's command and around it, and which versions of it are there."""

    versions: str
    prefix: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def place_of(client: Client, where: str) -> AbstractContextManager[Place]:
    """`where`: a suite, a version of PyPI's (`` for the newest), or `` for this machine.

    Entering it raises LookupError where the program is not installed, and OSError or CalledProcessError
    where it cannot be fetched.
    """
    if client.pypi:
        return _of_pypi(client.pypi, where)
    return _of_suite(client.debian, where) if where else _of_machine(client)


@contextmanager
def _of_machine(client: Client) -> Iterator[Place]:
    program = client.command[0]
    if shutil.which(program) is None:
        raise LookupError(f"{program} is not installed")
    query = ["dpkg-query", "--show", "--showformat=${Package} ${Version}\n"]
    query += [f"{name}*" for name in client.debian]
    said = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    found = dict(line.split(" ", 1) for line in said.splitlines())
    yield Place(_told(client.debian, found))


@contextmanager
def _of_suite(packages: Sequence[str], name: str) -> Iterator[Place]:
    suite = Suite(name)
    # Libraries come with their programs. What every system has is named by none.
    wanted = [packages[0], *(package for package in packages[1:] if not package.startswith("lib"))]
    wanted += _EVERYWHERE
    found = suite.plan("install", *wanted)
    with tempfile.TemporaryDirectory(prefix="ram-capture-") as directory:
        tree = Path(directory) / "tree"
        tree.mkdir()
        suite.unpack(found, tree)
        (tree / "etc").mkdir(exist_ok=True)
        (tree / "etc" / "hosts").write_text(f"127.0.0.1 {NAME}\n", encoding="ascii")
        yield Place(_told(packages, found), ["unshare", "--mount", "sh", "-c", _INSIDE, str(tree)])


@contextmanager
def _of_pypi(project: str, version: str) -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="ram-capture-") as directory:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", directory]
        subprocess.run([*pip, f"{project}=={version}" if version else project], check=True)
        (found,) = Path(directory).glob(f"{project.replace('-', '_')}-*.dist-info")
        path = [str(Path(directory) / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        yield Place(
            f"{project} {found.stem.rpartition('-')[2]} of PyPI",
            environment={"PATH": os.pathsep.join(path), "PYTHONPATH": directory},
        )


def _told(packages: Sequence[str], found: Mapping[str, str]) -> str:
    """Each package with its version. Libraries are called otherwise in each suite."""
    told = []
    for package in packages:
        names = (
            [package] if found.get(package) else sorted(name for name in found if name.startswith(package))
        )
        told += [f"{name} {found[name]}" for name in names if found[name]][:1]
    return ", ".join(told)

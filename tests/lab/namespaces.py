"""Network namespaces of the lab, named ramlab-<label>-<role>."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import config, netns

from .owner import PREFIX, label_of

# pyroute2 has a child process enter a namespace, for which a guest without acceleration may take longer than
# the two seconds that are usual.
config.default_communicate_timeout = 60
config.default_create_socket_timeout = 60

DIRECTORY = Path("/run/netns")


@dataclass(frozen=True)
class Namespace:
    """A named network namespace."""

    name: str

    @property
    def path(self) -> Path:
        """The file that keeps the namespace, for nsenter --net=…"""
        return DIRECTORY / self.name

    def holds(self, pid: int) -> bool:
        """Tell whether a process is in the namespace (false when the process is gone)."""
        try:
            return Path(f"/proc/{pid}/ns/net").stat().st_ino == self.path.stat().st_ino
        except (FileNotFoundError, ProcessLookupError):
            return False


def create(label: str, role: str) -> Namespace:
    """Make the namespace of one role."""
    namespace = Namespace(f"{PREFIX}{label}-{role}")
    netns.create(namespace.name)
    return namespace


def remove(label: str) -> list[str]:
    """Remove all namespaces of a label and return their names."""
    names = [name for name in _names() if label_of(name) == label]
    for name in names:
        with contextlib.suppress(FileNotFoundError):  # another lab cleans up at the same time
            netns.remove(name)
    return names


def labels() -> set[str]:
    """Return the labels of all labs that have a namespace."""
    return {label for name in _names() if (label := label_of(name))}


def _names() -> list[str]:
    return [path.name for path in DIRECTORY.iterdir()] if DIRECTORY.is_dir() else []

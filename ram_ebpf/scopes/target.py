"""What a scope means on this host: the places that it has right now, which come and go."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ram_ebpf.dataplane.devices import Device
from ram_ebpf.policy.terms import STRICT, Terms
from ram_ebpf.scopes.cgroup_watch import CgroupWatch


@dataclass(frozen=True)
class Places:
    """Where to attach."""

    cgroups: frozenset[Path] = frozenset()
    devices: frozenset[Device] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.cgroups or self.devices)


_NOWHERE = Places()
_WATCHED_PERIOD = 2.0  # seconds


class Target(ABC):
    """One scope. `label` is how the policy or the command line names it, `terms` what applies there.

    `period`: seconds between two looks, 0 where looking is cheap. When a device comes or goes, it is looked
    at once. `at_devices`: whether it may have devices among its places. `units`: of systemd, which it means.
    """

    label: str
    period: float = 0.0
    at_devices: bool = False
    units: tuple[str, ...] = ()
    terms: Terms = STRICT

    @property
    def kind(self) -> str:
        """By which key the policy names it, with which its label begins."""
        return self.label.partition(" ")[0]

    @abstractmethod
    def find(self) -> Places:
        """Its places now; none where there is nothing of it."""

    def remarks(self) -> list[str]:
        """What a person should know of what find() has found last; each is said once."""
        return []


class CgroupTarget(Target):
    """One cgroup, by its directory."""

    watch: CgroupWatch | None = None
    """Who tells when the directory goes or comes, as far as the kernel lets it."""

    def __init__(self, directory: Path, label: str = "") -> None:
        self.directory = directory
        self.label = label or f"cgroup {directory}"
        self._there = Places(cgroups=frozenset({directory}))

    def find(self) -> Places:
        """The directory, if it is there."""
        # In this order, so that nothing happens in between. What it is in may be another one than before.
        is_told = self.watch is not None and self.watch.watch(self.directory.parent)
        found = os.path.isdir(self.directory)  # noqa: PTH112 - often
        # Only as long as it is there nobody can have removed what it is in, and what is told is told of that.
        self.period = _WATCHED_PERIOD if found and is_told else 0.0
        return self._there if found else _NOWHERE


class Watch(Protocol):
    """Something that knows when to look where a scope is."""

    def fileno(self) -> int:
        """A descriptor that is readable when there is news."""

    def has_news(self) -> bool:
        """Whether there was any since the last call."""

"""Running containers, whichever engine knows of them, as places to govern."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ram_ebpf.dataplane import namespaces
from ram_ebpf.dataplane.devices import Device
from ram_ebpf.scopes.cgroup import of_container
from ram_ebpf.scopes.device import cables, devices_inside, number_of
from ram_ebpf.scopes.target import Places, Target

_NEW = 3.0  # seconds for which a container is new
_OFTEN, _SELDOM = 0.2, 3.0  # seconds between two looks


@dataclass(frozen=True)
class RunningContainer:
    """A container that runs. `pid`: its first process."""

    identifier: str
    name: str
    labels: tuple[tuple[str, str], ...]
    pid: int
    image: str = ""


def living(containers: Iterable[RunningContainer]) -> tuple[RunningContainer, ...]:
    """Those whose first process is still there."""
    return tuple(item for item in containers if Path(f"/proc/{item.pid}").exists())


class Containers(Protocol):
    """Somebody who knows which containers run."""

    @property
    def containers(self) -> tuple[RunningContainer, ...]:
        """Those that run now."""


class Networks:
    """By which numbers this namespace knows the network namespaces of containers.

    Such a number stays as long as the namespace, so each is asked for once. Then another one may get it, and
    that soon.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, tuple[tuple[int, int], int]] = {}  # by process, with its namespace

    def number(self, pid: int) -> int | None:
        """None for this namespace itself, for one that no veth leads to yet, and for one that is gone."""
        namespace = Path(f"/proc/{pid}/ns/net")
        with contextlib.suppress(OSError):
            identity = namespaces.identity(namespace)
            if identity == namespaces.identity(namespaces.OWN):
                return None
            known = self._numbers.get(pid)
            if known is not None and known[0] == identity:
                return known[1]
            number = number_of(namespace)
            if number is not None:
                self._numbers[pid] = identity, number
            return number
        return None

    def forget_all_but(self, pids: Collection[int]) -> None:
        """Processes that have ended, whose ids others may get."""
        self._numbers = {pid: known for pid, known in self._numbers.items() if pid in pids}


class ContainersTarget(Target):
    """All running containers of some kind: their cgroups, and what leads out of their networks."""

    at_devices = True

    def __init__(
        self,
        label: str,
        containers: Containers,
        mount: Path,
        is_meant: Callable[[RunningContainer], bool],
        networks: Networks | None = None,
    ) -> None:
        """`networks`: None for what nobody else looks at."""
        self.label = label
        self._containers = containers
        self._mount = mount
        self._is_meant = is_meant
        self._networks = networks or Networks()
        self._since: dict[int, float] = {}  # when each process was seen first
        self._inside: dict[int, frozenset[Device]] = {}  # what is governed in there, by process
        self._remarks: list[str] = []

    @property
    def period(self) -> float:  # type: ignore[override]
        """Often while a container is new: what it runs and how it is connected may not be seen at once."""
        newest = max(self._since.values(), default=0.0)
        return _OFTEN if time.monotonic() - newest < _NEW else _SELDOM

    def find(self) -> Places:
        """Of a container in the host's own network only the cgroup."""
        containers = self._containers.containers
        self._forget_all_but({container.pid for container in containers})
        meant = [container for container in containers if self._is_meant(container)]
        self._remarks = [remark for container in meant if (remark := self._remark_on(container))]
        cgroups = {of_container(item.pid, item.identifier, self._mount) for item in meant}
        there = cables() if meant else []
        devices: set[Device] = set()
        for container in meant:
            number = self._networks.number(container.pid)
            leading = [cable for cable in there if number is not None and cable.number == number]
            devices.update(cable.device for cable in leading)
            devices |= self._others_of(container.pid, {cable.end for cable in leading})
        return Places(
            frozenset(cgroup for cgroup in cgroups if cgroup and cgroup != self._mount), frozenset(devices)
        )

    def remarks(self) -> list[str]:
        """Containers that share more with this host than is good for enforcement."""
        return self._remarks

    def _remark_on(self, container: RunningContainer) -> str | None:
        name = container.name or container.identifier[:12]
        if of_container(container.pid, container.identifier, self._mount) == self._mount:
            return (
                f"container {name} is in the root cgroup, which holds this whole host: it is governed only "
                "where its network leads out, and by a scope of the host"
            )
        with contextlib.suppress(OSError):
            namespace = namespaces.identity(Path(f"/proc/{container.pid}/ns/net"))
            if namespace == namespaces.identity(namespaces.OWN):
                return (
                    f"container {name} is in this host's own network: its cgroup is governed, and no device "
                    "is, so that whoever has rights over cgroups in there can take it off"
                )
        return None

    def _others_of(self, pid: int, ends: set[int]) -> frozenset[Device]:
        """Devices that are governed inside, such as a macvlan. Entering a namespace takes long."""
        if time.monotonic() - self._since[pid] < _NEW or pid not in self._inside:
            self._inside[pid] = frozenset()
            namespace = Path(f"/proc/{pid}/ns/net")
            with contextlib.suppress(OSError):
                if namespaces.identity(namespace) != namespaces.identity(namespaces.OWN):
                    self._inside[pid] = devices_inside(namespace, ends)
        return self._inside[pid]

    def _forget_all_but(self, pids: set[int]) -> None:
        now = time.monotonic()
        self._since = {pid: self._since.get(pid, now) for pid in pids}
        self._inside = {pid: devices for pid, devices in self._inside.items() if pid in pids}
        self._networks.forget_all_but(pids)

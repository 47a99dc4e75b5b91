"""Whatever runs BuildKit's daemon on this host, whichever engine has started it, or none."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path

from ram_ebpf.dataplane import namespaces
from ram_ebpf.dataplane.devices import Device
from ram_ebpf.scopes.builders import is_buildkit
from ram_ebpf.scopes.cgroup import of_process
from ram_ebpf.scopes.device import devices_into
from ram_ebpf.scopes.target import Places, Target

_PERIOD = 3.0  # seconds between two looks at all processes
# All engines name the cgroup of a container by its identifier, with or without something around it.
_CONTAINER = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_log = logging.getLogger(__name__)


class BuildkitTarget(Target):
    """The cgroups of all processes `buildkitd`, and what leads out of their networks."""

    label = "builders any"
    at_devices = True
    period = _PERIOD

    def __init__(self, mount: Path, proc: Path = Path("/proc")) -> None:
        self._mount = mount
        self._proc = proc
        self._next_look = float("-inf")
        self._found = Places()
        self._told: set[int] = set()  # processes in the root cgroup that were told of

    def find(self) -> Places:
        """Looks through all processes every few seconds, and says the same again in between."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _PERIOD
            pids = [int(entry.name) for entry in self._proc.iterdir() if entry.name.isdigit()]
            self._found = self._places_of([pid for pid in pids if is_buildkit(pid, self._proc)])
        return self._found

    def _places_of(self, pids: Iterable[int]) -> Places:
        cgroups: set[Path] = set()
        devices: set[Device] = set()
        in_root = set()
        for pid in pids:
            own = self._devices_of(pid)
            devices |= own
            cgroup = self._cgroup_of(pid)
            if cgroup == self._mount:
                in_root.add(pid)
                self._tell(pid, bool(own))
            elif cgroup is not None:
                cgroups.add(cgroup)
        self._told &= in_root
        return Places(frozenset(cgroups), frozenset(devices))

    def _cgroup_of(self, pid: int) -> Path | None:
        """That of its container as a whole: BuildKit makes one for itself in there, and more for steps."""
        cgroup = of_process(pid, self._mount, self._proc)
        if cgroup is None:
            return None
        return next((path for path in (cgroup, *cgroup.parents) if _CONTAINER.search(path.name)), cgroup)

    def _devices_of(self, pid: int) -> frozenset[Device]:
        namespace = self._proc / str(pid) / "ns/net"
        with contextlib.suppress(OSError):  # it has ended
            if namespaces.identity(namespace) != namespaces.identity(namespaces.OWN):
                return devices_into(namespace)
        return frozenset()

    def _tell(self, pid: int, at_devices: bool) -> None:
        if pid not in self._told:
            self._told.add(pid)
            _log.warning(
                "%s: buildkitd (pid %d) runs in the root cgroup, which holds this whole host, and is %s; "
                "start it in a cgroup of its own, as a systemd unit does",
                self.label,
                pid,
                "governed only where its network leads out" if at_devices else "not governed",
            )

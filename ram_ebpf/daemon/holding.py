"""New containers are held to the policy until it is known whether they are governed.

Docker makes the device of a container, and plugs it into the bridge of its network, before the container's
first process runs; which container it is for can only be asked when that runs. In between the device is held:
what the policy allows passes, DNS above all, and the rest is dropped without a word.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ram_ebpf.dataplane import devices
from ram_ebpf.dataplane.devices import Attachment, Device
from ram_ebpf.dataplane.plane import Plane

# Seconds; after that it is somebody else's device, at a bridge of Docker's. Where two hundred containers
# start at once on a small machine, some take more than ten between their device and their process.
_LONGEST = 60.0


class Ports(Protocol):
    """The devices at the bridges of Docker's networks."""

    def known(self) -> set[Device]:
        """Those that lead to containers which run."""

    def others(self) -> set[Device]:
        """Those of which nobody knows where they lead."""


@dataclass
class _Held:
    attachments: list[Attachment]
    since: float


class Holding:
    """Holds and lets go. One thread calls all of this, after whatever attaches to known containers."""

    def __init__(self, plane: Plane, ports: Ports, say: Callable[[str, str], None]) -> None:
        self._plane = plane
        self._ports = ports
        self._say = say
        self._held: dict[Device, _Held] = {}
        self._given_up: set[Device] = set()
        self._known: set[Device] = set()
        self._others: set[Device] = set()

    @property
    def is_holding(self) -> bool:
        """Whether some device waits."""
        return bool(self._held)

    def begin(self) -> None:
        """Lets go of what an earlier instance held, if it is known by now, and takes over the rest.

        Follows look(), and whatever attaches to what was known then. Raises OSError.
        """
        left = {device: devices.held(device) for device in self._known | self._others}
        self.act()
        for device, attachments in left.items():
            devices.detach(device, attachments)

    def look(self) -> None:
        """Looks at all devices anew, and holds those that lead nowhere known. Raises nothing.

        To be called before somebody attaches to what is known by now, so that act() lets go of nothing that
        has become known since then and is not attached to.
        """
        with contextlib.suppress(OSError):
            self._known, self._others = self._ports.known(), self._ports.others()
        busy = {*self._held, *self._given_up, *self._plane.attached_devices}
        for device in self._others - busy:
            with contextlib.suppress(OSError):  # it is gone again
                self._held[device] = _Held(self._plane.hold(device), time.monotonic())

    def act(self) -> None:
        """Lets go of what was known or gone when look() was called, or has waited for too long."""
        for device in list(self._held):
            if device not in self._others:
                self._let_go(device)
            elif time.monotonic() - self._held[device].since > _LONGEST:
                self._let_go(device)
                self._given_up.add(device)
                self._say(
                    "unknown-device",
                    f"device {device} is at a bridge of Docker's, and leads to no container that runs: "
                    "it is not governed; name it with a scope of its own if it should be",
                )
        self._given_up &= self._others

    def _let_go(self, device: Device) -> None:
        devices.detach(device, self._held.pop(device).attachments)
        if not self._held:
            self._plane.forget_held()

    def close(self) -> None:
        """Lets go of everything."""
        for device in list(self._held):
            self._let_go(device)

"""New containers are held to the policy until it is known whether they are governed.

Docker makes the device of a container, and plugs it into the bridge of its network, before the container's
first process runs; which container it is for can only be asked when that runs. However long it takes to ask,
nothing gets out in between: the bridge itself holds what comes from a port that is not known. What the policy
allows passes, DNS above all, and the rest is dropped without a word.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Set
from typing import Protocol

from ram_ebpf.dataplane import devices
from ram_ebpf.dataplane.devices import BusyDeviceError, Device
from ram_ebpf.dataplane.plane import Plane

# Seconds; after that it is somebody else's device, at a bridge of Docker's. Where two hundred containers
# start at once on a small machine, some take more than ten between their device and their process.
_LONGEST = 60.0


class Ports(Protocol):
    """The bridges of Docker's networks, and the devices at them, as they were when look() was called last."""

    bridges: Set[Device]
    known: Set[Device]
    """Those that lead to containers which run."""
    others: Set[Device]
    """Those of which nobody knows where they lead."""

    def look(self) -> None:
        """Looks at all of them anew. Raises OSError, and has changed nothing then."""


class Holding:
    """Holds and lets pass. One thread calls all of this, after whatever attaches to known containers."""

    def __init__(
        self,
        plane: Plane,
        ports: Ports,
        failing: Callable[[], Set[Device]],
        say: Callable[[str, str], None],
    ) -> None:
        """`failing`: devices that are to be governed and could not be."""
        self._plane = plane
        self._ports = ports
        self._failing = failing
        self._say = say
        self._since: dict[Device, float] = {}  # when each was seen first that nobody knows
        self._busy: set[Device] = set()

    @property
    def is_holding(self) -> bool:
        """Whether somebody waits."""
        return bool(self._since)

    def prepare(self) -> None:
        """Loads what is needed. Raises as Plane.prepare_devices() does."""
        with contextlib.suppress(OSError):
            self._ports.look()
        self._plane.prepare_bridges(self._ports.bridges)

    def look(self) -> None:
        """Looks at all bridges and ports anew, and holds at new bridges. Raises nothing.

        To be called before somebody attaches to what is known by now, so that act() lets nothing pass that
        has become known since then and is not attached to.
        """
        with contextlib.suppress(OSError):
            self._ports.look()
        bridges = self._plane.bridges
        for bridge in bridges.holding - self._ports.bridges:
            bridges.let_go(bridge)
        for bridge in self._ports.bridges - bridges.holding:
            self._hold(bridge)

    def _hold(self, bridge: Device) -> None:
        try:
            self._plane.bridges.hold(bridge)
        except BusyDeviceError as error:
            if bridge not in self._busy:
                self._busy.add(bridge)
                self._say("remark", f"{error}, which holds new containers there")
        except OSError:  # it is gone again
            pass
        else:
            self._busy.discard(bridge)

    def begin(self) -> None:
        """The same as act(), and tidies up after an earlier instance at the ports. Raises nothing."""
        self.act()
        for port in (self._ports.known | self._ports.others) - self._plane.bridges.known:
            with contextlib.suppress(OSError):
                devices.detach(port, devices.known(port))

    def act(self) -> None:
        """Lets pass what was known when look() was called, or has waited for too long. Raises nothing."""
        bridges = self._plane.bridges
        governed = set(self._plane.attached_devices)
        for port in bridges.known - self._ports.known - self._ports.others:
            bridges.forget(port)
        for port in self._ports.known - governed - self._failing() - bridges.known:
            self._let_pass(port)
        waiting = self._ports.others - governed - bridges.known
        now = time.monotonic()
        self._since = {port: self._since.get(port, now) for port in waiting}
        for port, since in list(self._since.items()):
            if now - since > _LONGEST:
                self._let_pass(port)
                del self._since[port]
                self._say(
                    "unknown-device",
                    f"device {port} is at a bridge of Docker's, and leads to no container that runs: "
                    "it is not governed; name it with a scope of its own if it should be",
                )
        if not self._since:
            self._plane.forget_held()

    def _let_pass(self, port: Device) -> None:
        with contextlib.suppress(OSError):  # it is gone again
            self._plane.bridges.let_pass(port)

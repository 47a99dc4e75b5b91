"""Bridges that hold new containers to the policy, and the ports of such bridges that are known.

What a bridge passes on to this host carries the mark of its port, if that is governed or known otherwise. All
else comes from a container of which nobody knows yet whether it is governed; see bpf/tc.c.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from ram_ebpf.dataplane import abi, devices
from ram_ebpf.dataplane.devices import Attachment, Device
from ram_ebpf.dataplane.programs import DEVICE_PROGRAMS, Programs
from ram_ebpf.dataplane.scope import Scope

_LARGEST_MARK = 0xFFFF


def choose_mark(bridges: Iterable[Device]) -> int:
    """That of an earlier instance, which is dead, at one of these bridges, or a new one.

    An earlier one's programs stay where they are until ours are there, and the two must agree.
    """
    for bridge in bridges:
        with contextlib.suppress(OSError):
            mark = devices.mark_of(bridge)
            if mark:
                return mark
    return secrets.randbelow(_LARGEST_MARK) + 1


@dataclass
class _Bridge:
    attachments: list[Attachment]
    lock: socket.socket


class Bridges:
    """Those of this network namespace. One thread calls all of this."""

    def __init__(self, held: Scope) -> None:
        """`held`: the scope of all who are held. Raises VerifierError or OSError."""
        self.held = held
        self._programs: Programs = held.view.load_for_known()
        self._bridges: dict[Device, _Bridge] = {}
        self._known: dict[Device, list[Attachment]] = {}

    @property
    def holding(self) -> frozenset[Device]:
        """The bridges that hold new containers."""
        return frozenset(self._bridges)

    @property
    def known(self) -> frozenset[Device]:
        """The ports that were let pass."""
        return frozenset(self._known)

    def hold(self, bridge: Device) -> None:
        """Holds what comes from its ports, but for those that are known.

        Raises BusyDeviceError when another living instance does it already, VerifierError or OSError.
        """
        lock = devices.lock(bridge, "bridge")
        try:
            programs = self.held.programs_for(bridge.flags | abi.PlaceFlag.HOLD)
            leftovers = devices.held(bridge)
            attachments = devices.attach(programs, bridge, DEVICE_PROGRAMS.holding)
        except BaseException:
            lock.close()
            raise
        self._bridges[bridge] = _Bridge(attachments, lock)
        devices.detach(bridge, leftovers)

    def move(self, held: Scope) -> None:
        """Holds by another scope from now on. Raises VerifierError or OSError."""
        programs = held.view.load_for_known()
        for bridge, item in self._bridges.items():
            its = held.programs_for(bridge.flags | abi.PlaceFlag.HOLD)
            attachments = devices.attach(its, bridge, DEVICE_PROGRAMS.holding)
            devices.detach(bridge, item.attachments)
            item.attachments = attachments
        for port, before in self._known.items():
            self._known[port] = devices.attach_known(programs, port)
            devices.detach(port, before)
        self._programs.close()
        self.held, self._programs = held, programs

    def let_go(self, bridge: Device) -> None:
        """Holds nobody there any more; one that is gone has let go already."""
        item = self._bridges.pop(bridge)
        devices.detach(bridge, item.attachments)
        item.lock.close()

    def let_pass(self, port: Device) -> None:
        """The port is known, and not governed. Raises OSError."""
        leftovers = devices.known(port)
        self._known[port] = devices.attach_known(self._programs, port)
        devices.detach(port, leftovers)

    def forget(self, port: Device) -> None:
        """The port is not known any more."""
        devices.detach(port, self._known.pop(port))

    def close(self) -> None:
        """Takes everything off."""
        for bridge in list(self._bridges):
            self.let_go(bridge)
        for port in list(self._known):
            self.forget(port)
        self._programs.close()

"""What instances that were killed have left: pins, and programs that go on deciding where they are."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from ram_ebpf.daemon import control
from ram_ebpf.dataplane import cgroups, devices, locks, pins
from ram_ebpf.dataplane.devices import Device
from ram_ebpf.dataplane.pins import Pinned
from ram_ebpf.dataplane.programs import CGROUP_HOOKS, RESOLVER_HOOKS
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, warning, well
from ram_ebpf.policy.words import plural

_SHOWN = 5


def examine_pins(case: Case) -> Iterator[Finding]:
    """In the BPF file system, and sockets of the dead. For root."""
    found = pins.pinned() if pins.is_bpf(pins.FILE_SYSTEM) else []
    sockets = []
    with contextlib.suppress(OSError):
        sockets = control.dead_sockets()
    yield of_pins(found, sockets)


def of_pins(found: Iterable[Pinned], sockets: list[Path]) -> Finding:
    """Of the dead: what is needed keeps a scope working, and what is not takes memory."""
    found = list(found)
    needed = [_with_version(item) for item in found if not item.alive and item.needed]
    unused = [_with_version(item) for item in found if not item.alive and not item.needed]
    if needed:
        return warning(
            Check.PINS,
            f"{_some(needed)} keeps programs of a killed instance working, with what they knew then",
            "start ram-ebpf again: it takes over, and removes this",
        )
    if unused or sockets:
        return warning(
            Check.PINS,
            f"{_some([*unused, *map(str, sockets)])} was left by a killed instance, and nobody needs it",
            "start ram-ebpf, which removes it; or ram-ebpf detach",
        )
    alive = sum(item.alive for item in found)
    there = f"pins of {plural(alive, 'running instance')} are there, and" if alive else "there are"
    return well(Check.PINS, f"{there} no pins of dead instances")


def _with_version(item: Pinned) -> str:
    return str(item.directory) if item.version is None else f"{item.directory} (of {item.version})"


def _some(things: list[str]) -> str:
    more = f" and {len(things) - _SHOWN} more" if len(things) > _SHOWN else ""
    return f"{', '.join(things[:_SHOWN])}{more}"


def examine_attached(case: Case) -> Iterator[Finding]:
    """Programs of ram-ebpf at control groups and devices of which no running instance has hold. For root."""
    places = [] if case.mount is None else list(_cgroups(case.mount))
    yield of_attached([*places, *map(str, _devices())])


def _cgroups(mount: Path) -> Iterator[str]:
    """As the directory of one that is governed is locked by its instance."""
    locked = locks.locked()
    for parent, _, _ in os.walk(mount):
        cgroup = Path(parent)
        with contextlib.suppress(OSError):  # it is gone
            hooks = (*CGROUP_HOOKS, *RESOLVER_HOOKS)
            attached = cgroups.ours_attached(cgroup, hooks)
            # One where a resolver lives may be watched by a running instance, which locks nothing then.
            if attached.keys() & set(CGROUP_HOOKS) and locks.name_of(cgroup) not in locked:
                yield parent


def _devices() -> Iterator[Device]:
    """As whoever governs one has a name for it in the abstract namespace; see dataplane/devices.py."""
    for index, name in socket.if_nameindex():
        device = Device(name, index)
        for what, attached in (("device", devices.ours_attached), ("bridge", devices.held)):
            with contextlib.suppress(OSError):
                if attached(device) and not devices.is_locked(device, what):
                    yield device


def of_attached(places: list[str]) -> Finding:
    """`places`: where programs are that nobody looks after."""
    if not places:
        return well(Check.LEFTOVERS, "no programs of ram-ebpf are attached that nobody looks after")
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    return warning(
        Check.LEFTOVERS,
        f"programs of a killed instance go on deciding at {', '.join(places[:_SHOWN])}{more}",
        "start ram-ebpf with the same scopes, which takes over without a gap; or be rid of them: "
        "ram-ebpf detach",
    )

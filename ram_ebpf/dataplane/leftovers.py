"""Takes away what instances that are no more have left attached and pinned: a killed one leaves all of it.

A start does this for what it governs itself. This is for the end, when nothing is to be governed any more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ram_ebpf.dataplane import cgroups, devices, locks, namespaces, pins
from ram_ebpf.dataplane.devices import Attachment, BusyDeviceError, Device
from ram_ebpf.dataplane.programs import CGROUP_HOOKS, RESOLVER_HOOKS


@dataclass(frozen=True)
class Found:
    """What was there. `what`: in words, and where."""

    what: str
    held: bool = False
    """A living instance looks after it, and it was left alone."""
    holder: int | None = None
    """The process of that, where it is known."""


def remove(mount: Path, elsewhere: Iterable[Path]) -> Iterator[Found]:
    """Detaches everything in and below a cgroup2 directory and at all devices; says each place.

    `elsewhere`: other network namespaces than that of this process. What a living instance governs is left
    alone. Raises OSError where the kernel refuses.
    """
    yield from _at_cgroups(mount)
    yield from _at_devices(None)
    for namespace in elsewhere:
        with contextlib.suppress(FileNotFoundError):  # its last process has ended
            yield from _at_devices(namespace)
    for directory in pins.remove_dead():
        yield Found(f"the pins in {directory}")


def _at_cgroups(mount: Path) -> Iterator[Found]:
    for parent, _, _ in os.walk(mount):
        directory = Path(parent)
        with contextlib.suppress(FileNotFoundError):
            try:
                count = _at_cgroup(directory)
            except BlockingIOError:
                # Anybody may lock a directory; what is ours in it says that it is an instance.
                count = sum(map(len, cgroups.ours_attached(directory).values()))
                if count:
                    yield Found(f"{count} programs at {directory}", True, locks.holder(directory))
                continue
            if count:
                yield Found(f"{count} programs at {directory}")


def _at_cgroup(directory: Path) -> int:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return sum(
            cgroups.detach_leftovers(cgroups.ours_attached(directory, hooks), directory)
            for hooks in (CGROUP_HOOKS, RESOLVER_HOOKS)
        )
    finally:
        os.close(lock)


def _at_devices(namespace: Path | None) -> Iterator[Found]:
    for device in _devices_in(namespace):
        try:
            with devices.lock(device), devices.lock(device, "bridge"):
                found = _ours_at(device)
                devices.detach(device, found)
        except BusyDeviceError:
            if found := _ours_at(device):
                yield Found(f"{len(found)} programs at device {device}", held=True)
            continue
        if found:
            yield Found(f"{len(found)} programs at device {device}")


def _ours_at(device: Device) -> list[Attachment]:
    return [*devices.ours_attached(device), *devices.held(device), *devices.known(device)]


def _devices_in(namespace: Path | None) -> list[Device]:
    try:
        with namespaces.inside(namespace), IPRoute() as netlink:
            return [
                Device(link.get_attr("IFLA_IFNAME"), link["index"], namespace=namespace)
                for link in netlink.get_links()
            ]
    except NetlinkError as error:
        raise OSError(error.code, f"the devices of {namespace or 'this host'}: {error}") from error

"""Keeps programs attached to the places of each scope, which come and go while the daemon runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ram_ebpf.dataplane import devices
from ram_ebpf.dataplane.devices import BusyDeviceError, Device
from ram_ebpf.dataplane.plane import BusyCgroupError, Plane
from ram_ebpf.dataplane.scope import Scope
from ram_ebpf.dataplane.view import View
from ram_ebpf.dns import netlink
from ram_ebpf.policy.terms import Terms
from ram_ebpf.scopes.target import Places, Target

_MOST_REMARKS = 4096
_RTMGRP_LINK = 1  # include/uapi/linux/rtnetlink.h


class LinkWatch(netlink.Watch):
    """A descriptor that is readable when a device of this network namespace has come, gone or changed."""

    def __init__(self) -> None:
        super().__init__(_RTMGRP_LINK)


@dataclass
class _Followed:
    """A target, its scope in the data plane, and where that is attached."""

    target: Target
    terms: Terms
    view: View
    scope: Scope | None = None  # of its cgroups
    device_scope: Scope | None = None
    cgroups: set[Path] = field(default_factory=set)
    devices: set[Device] = field(default_factory=set)
    next_look: float = 0.0


def _name(place: Path | Device) -> str:
    return str(place) if isinstance(place, Path) else f"device {place}"


Say = Callable[[str, str], None]


class Following:
    """All targets. One thread calls all of this."""

    def __init__(
        self,
        plane: Plane,
        views: Mapping[Terms, View],
        targets: Sequence[Target],
        say: Say,
        changed: Callable[[], None],
    ) -> None:
        """`views`: by the terms of the targets. `changed` is called when something was attached."""
        self._plane = plane
        self._followed = [_Followed(target, target.terms, views[target.terms]) for target in targets]
        self._say = say
        self._changed = changed
        self._failed: set[Path | Device] = set()
        self._seen: set[str] = set()  # places that were governed before
        self._said: set[str] = set()

    def begin(self) -> None:
        """Attaches to all places that there are. Raises what Plane.attach and attach_device raise."""
        for item in self._followed:
            places = item.target.find()
            self._remark(item)
            for cgroup in sorted(places.cgroups):
                self._attach_cgroup(item, cgroup)
            for device in sorted(places.devices, key=str):
                self._attach_device(item, device)

    def replace(self, targets: Sequence[tuple[Target, Terms]], views: Mapping[Terms, View]) -> None:
        """Governs these instead, each place without a moment in between. Raises nothing.

        What cannot be attached anew stays governed as it was, and is told of.
        """
        before = self._followed
        self._followed = [_Followed(target, terms, views[terms]) for target, terms in targets]
        for item in self._followed:
            self._take(item, before)
        for item in list(self._followed):
            for old in before:
                old.cgroups -= item.cgroups
                old.devices -= item.devices
        for old in before:
            for cgroup in old.cgroups - self._failed:
                self._plane.detach(cgroup)
                self._say_left(cgroup)
            for device in old.devices - self._failed:
                self._plane.detach_device(device)
                self._say_left(device)
            old.cgroups &= self._failed
            old.devices &= self._failed
            if old.cgroups or old.devices:
                self._followed.append(old)

    def _take(self, item: _Followed, before: Sequence[_Followed]) -> None:
        try:
            places = item.target.find()
        except OSError as error:
            self._say_once(f"{item.target.label} cannot be looked for: {error}")
            known = [old for old in before if old.target is item.target]
            places = Places(
                frozenset(path for old in known for path in old.cgroups),
                frozenset(device for old in known for device in old.devices),
            )
        self._remark(item)
        for cgroup in sorted(places.cgroups):
            self._try(cgroup, lambda cgroup=cgroup: self._attach_cgroup(item, cgroup), quiet=True)  # type: ignore[misc]
        for device in sorted(places.devices, key=str):
            self._try(device, lambda device=device: self._attach_device(item, device), quiet=True)  # type: ignore[misc]

    def _say_left(self, place: Path | Device) -> None:
        self._say("scope-gone", f"{_name(place)} is in no scope of the policy any more")

    def failed_devices(self) -> set[Device]:
        """Those that should be governed and could not be."""
        return {place for place in self._failed if isinstance(place, Device)}

    def failed(self) -> int:
        """How many places should be governed and could not be."""
        return len(self._failed)

    def kinds(self) -> list[tuple[str, Terms, int]]:
        """Of each scope its kind, what applies there, and in how many places it is."""
        found: dict[str, tuple[str, Terms, int]] = {}
        for item in self._followed:
            label, places = item.target.label, len(item.cgroups) + len(item.devices)
            kind, terms, before = found.get(label, (item.target.kind, item.terms, 0))
            found[label] = kind, terms, before + places
        return list(found.values())

    def label_of(self, scope: int) -> str | None:
        """How the policy names the scope of a number."""
        for item in self._followed:
            for its in (item.scope, item.device_scope):
                if its is not None and its.number == scope:
                    return item.target.label
        return None

    def labels(self) -> list[str]:
        """How the policy names the scopes, in its order."""
        return list(dict.fromkeys(item.target.label for item in self._followed))

    def _of(self, label: str) -> list[_Followed]:
        return [item for item in self._followed if item.target.label == label]

    def terms_of(self, label: str) -> Terms:
        """What applies in a scope."""
        return self._of(label)[0].terms

    def view_of(self, label: str) -> View:
        """Its rules in the kernel."""
        return self._of(label)[0].view

    def scopes_of(self, label: str) -> list[Scope]:
        """What the kernel keeps for it, as far as it has places."""
        return [its for item in self._of(label) for its in (item.scope, item.device_scope) if its is not None]

    def cgroups_of(self, label: str) -> list[Path]:
        """Where it is."""
        return sorted(path for item in self._of(label) for path in item.cgroups)

    def devices_of(self, label: str) -> list[Device]:
        """The same."""
        return sorted((device for item in self._of(label) for device in item.devices), key=str)

    def innermost(self, cgroup: Path) -> tuple[str, str] | None:
        """The scope that decides for the processes of a cgroup, and where it is; None where there is none."""
        for directory in (cgroup, *cgroup.parents):
            for item in self._followed:
                if directory in item.cgroups:
                    return item.target.label, str(directory)
        return None

    def label_of_device(self, device: Device) -> str | None:
        """The scope of a governed device, whichever path leads to its namespace."""
        for item in self._followed:
            if any(devices.are_same(device, governed) for governed in item.devices):
                return item.target.label
        return None

    def follow(self, hurry: bool = False) -> None:
        """Looks where each scope is now, and lets go and attaches as needed. Raises nothing."""
        now = time.monotonic()
        for item in self._followed:
            if hurry or now >= item.next_look:
                self._follow(item)
                item.next_look = now + item.target.period

    def next_look(self) -> float:
        """When follow() has something to do at the latest, on the monotonic clock."""
        return min((item.next_look for item in self._followed), default=float("inf"))

    def _remark(self, item: _Followed) -> None:
        for remark in item.target.remarks():
            self._say_once(remark)

    def _say_once(self, remark: str) -> None:
        if remark not in self._said:
            if len(self._said) >= _MOST_REMARKS:
                self._said.clear()
            self._said.add(remark)
            self._say("remark", remark)

    def _follow(self, item: _Followed) -> None:
        try:
            places = item.target.find()
        except OSError as error:
            self._say_once(
                f"{item.target.label} cannot be looked for, and stays governed where it was: {error}"
            )
            return
        self._remark(item)
        self._let_go(item, places)
        for cgroup in sorted(places.cgroups - item.cgroups):
            if cgroup not in self._plane.attached:
                self._try(cgroup, lambda cgroup=cgroup: self._attach_cgroup(item, cgroup))  # type: ignore[misc]
        for device in sorted(places.devices - item.devices, key=str):
            if device not in self._plane.attached_devices:
                self._try(device, lambda device=device: self._attach_device(item, device))  # type: ignore[misc]

    def _let_go(self, item: _Followed, places: Places) -> None:
        for cgroup in list(item.cgroups):
            if cgroup in places.cgroups and self._plane.is_current(cgroup):
                continue
            self._plane.detach(cgroup)
            item.cgroups.discard(cgroup)
            self._say("scope-gone", f"{cgroup} was removed; it is governed again when it comes back")
        for device in item.devices - places.devices:
            there = devices.exists(device)
            self._plane.detach_device(device)
            item.devices.discard(device)
            what = "no longer belongs to" if there else "was removed from"
            self._say("scope-gone", f"device {device} {what} {item.target.label}")

    def _try(self, place: Path | Device, attach: Callable[[], None], quiet: bool = False) -> None:
        """`quiet`: nobody needs to know that it went well."""
        name = _name(place)
        again = " again" if name in self._seen else ""
        try:
            attach()
        except FileNotFoundError:
            return
        except (OSError, BusyCgroupError, BusyDeviceError) as error:
            if isinstance(place, Device) and not devices.exists(place):
                self._failed.discard(place)
                return
            if place not in self._failed:
                self._failed.add(place)
                self._say("scope-failed", f"{name} cannot be governed, and is tried again: {error}")
            return
        self._failed.discard(place)
        if not quiet:
            self._say("scope-back", f"{name} is governed{again}")

    def _attach_cgroup(self, item: _Followed, cgroup: Path) -> None:
        if any(cgroup in other.cgroups for other in self._followed):  # by another scope of the policy
            return
        self._report(self._plane.attach(cgroup, self._scope_of(item, cgroup)), str(cgroup))
        item.cgroups.add(cgroup)
        self._seen.add(_name(cgroup))
        self._changed()

    def _attach_device(self, item: _Followed, device: Device) -> None:
        if any(device in other.devices for other in self._followed):
            return
        scope = self._device_scope_of(item, device)
        replaced = self._plane.attach_device(device, scope)
        self._plane.hand_over_held(scope)
        self._report(replaced, f"device {device}")
        item.devices.add(device)
        self._seen.add(_name(device))
        self._changed()

    def _report(self, replaced: int, where: str) -> None:
        if replaced:
            self._say("replaced", f"{replaced} programs left by an earlier instance on {where}")

    def _scope_of(self, item: _Followed, place: Path) -> Scope:
        if item.scope is None:
            item.scope = self._plane.open_scope(item.device_scope, item.view, place)
        else:
            self._plane.inherit(item.scope, place)
        return item.scope

    def _device_scope_of(self, item: _Followed, place: Device) -> Scope:
        if item.device_scope is None:
            item.device_scope = self._plane.open_scope(item.scope, item.view, place)
        else:
            self._plane.inherit(item.device_scope, place)
        return item.device_scope

"""Whose programs are attached where ours are to be: they are left alone, but some keep others out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from ram_ebpf.dataplane import cgroups, devices
from ram_ebpf.dataplane.devices import Device
from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, well

_SHOWN = 5


def examine(case: Case) -> Iterator[Finding]:
    """At the places of all scopes, and at the control groups around them. For root."""
    if case.mount is None:
        return
    places = [scope.places for scope in case.scopes]
    governed = sorted(frozenset().union(*(each.cgroups for each in places)))
    yield from of_cgroups(governed or [case.mount], case.mount)
    yield from of_devices(sorted(frozenset().union(*(each.devices for each in places)), key=str))


def of_cgroups(governed: Iterable[Path], mount: Path) -> Iterator[Finding]:
    """Who keeps us out is a failure; who is merely there is told."""
    others: dict[Path, list[str]] = {}
    refused = False
    for cgroup in governed:
        with contextlib.suppress(OSError):  # it is gone
            refusing = cgroups.refusing_company(cgroup, mount)
            if refusing is not None:
                refused = True
                yield failure(
                    Check.OTHER_PROGRAMS,
                    f"nothing can be attached to {cgroup}: a program at {refusing} was attached without "
                    "BPF_F_ALLOW_MULTI",
                    f"see whose it is: bpftool cgroup show {refusing}; have it attached with that flag",
                    str(cgroup),
                )
            for place in (cgroup, *(parent for parent in cgroup.parents if parent.is_relative_to(mount))):
                if place not in others:
                    others[place] = cgroups.others_attached(place)
    if not refused:
        yield well(Check.OTHER_PROGRAMS, _told("control groups", {str(k): v for k, v in others.items()}))


def of_devices(governed: Iterable[Device]) -> Iterator[Finding]:
    """Programs and filters of others at governed devices; ours are called before them."""
    others = {}
    for device in governed:
        with contextlib.suppress(OSError):  # it is gone
            others[str(device)] = devices.others_attached(device)
    if others:
        yield well(Check.OTHER_PROGRAMS, _told("devices", others))


def _told(where: str, others: dict[str, list[str]]) -> str:
    there = {place: list(dict.fromkeys(names)) for place, names in others.items() if names}
    if not there:
        return f"nobody else's programs are at the {where} of the scopes"
    shown = [f"{', '.join(names)} at {place}" for place, names in list(there.items())[:_SHOWN]]
    more = f", and at {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return f"others' programs at the {where} of the scopes and around: {'; '.join(shown)}{more}"

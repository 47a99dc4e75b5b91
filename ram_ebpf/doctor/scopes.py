"""The scopes of the policy: where each of them is now. One that is nowhere governs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.doctor.found_scopes import FoundScope
from ram_ebpf.policy.scope import (
    BuildersScope,
    ContainerScope,
    DeviceScope,
    EngineScope,
    NetnsScope,
    UnitScope,
)
from ram_ebpf.policy.words import plural

_SHOWN = 3  # places of a scope
_LATER = "nothing to do if it comes later; else see"
_CURES: dict[type, str] = {
    EngineScope: f"{_LATER} whether it is called so: ps -e",
    UnitScope: f"{_LATER} its name: systemctl list-units",
    NetnsScope: f"{_LATER} its name: ip netns",
    DeviceScope: f"{_LATER} its name: ip link",
    ContainerScope: f"{_LATER} whether Docker answers and has it: docker ps",
    BuildersScope: f"{_LATER} whether there are any: docker buildx ls",
}


def examine(case: Case) -> Iterator[Finding]:
    """Each scope by itself. For root."""
    if case.policy is not None:
        yield from of_scopes(case.scopes)


def of_scopes(found: Iterable[FoundScope]) -> Iterator[Finding]:
    """What each of them governs; a place belongs to the first that leads to it."""
    taken: set[object] = set()
    for item in found:
        yield _of_scope(item, taken)
        for text in item.remarks:
            problem, _, cure = text.rpartition("; ")
            yield warning(Check.SCOPE, problem or text, cure if problem else "see docs/policy.md", item.label)
        taken |= item.places.cgroups | item.places.devices


def _of_scope(item: FoundScope, taken: set[object]) -> Finding:
    label = f"{item.label} ({item.scope.posture.value})"
    if item.problem:
        problem, _, cure = item.problem.partition("; ")
        return failure(
            Check.SCOPE,
            f"{item.label}: {problem}; ram-ebpf does not start",
            cure or "correct it in the policy",
            item.label,
        )
    places = sorted(item.places.cgroups | item.places.devices, key=str)
    if not places:
        return warning(
            Check.SCOPE,
            f"{label} is nowhere now, so it governs nothing",
            _CURES.get(type(item.scope), "correct it in the policy"),
            item.label,
        )
    if taken.issuperset(places):
        return warning(
            Check.SCOPE,
            f"{label} leads only to what scopes before it in the policy have, so it governs nothing",
            "take it out of the policy, or put it before them",
            item.label,
        )
    shown = ", ".join(map(str, places[:_SHOWN]))
    more = f" and {plural(len(places) - _SHOWN, 'more place')}" if places[_SHOWN:] else ""
    return well(Check.SCOPE, f"{label}: {shown}{more}", item.label)

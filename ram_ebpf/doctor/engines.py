"""The container engines of this host, and whether each can be governed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.finding import Check, Finding, failure, warning, well
from ram_ebpf.policy.scope import Engine, EngineScope
from ram_ebpf.scopes.engines import FoundEngine, socket_of

_OWN_CGROUP = "start it in a control group of its own, as its systemd unit does (systemctl start docker)"


def examine(case: Case) -> Iterator[Finding]:
    """Each that runs. Without root, only those that show in /proc are found."""
    if case.mount is not None:
        yield from of_engines(case.engines, case.mount, _wanted(case))


def _wanted(case: Case) -> frozenset[Engine]:
    """What the policy names; all kinds where it says so."""
    scopes = case.policy.scopes if case.policy is not None else ()
    return frozenset(scope.engine for scope in scopes if isinstance(scope, EngineScope))


def of_engines(found: Iterable[FoundEngine], mount: Path, wanted: frozenset[Engine]) -> Iterator[Finding]:
    """`wanted`: those that are to be governed by themselves."""
    found = list(found)
    if not found:
        yield well(Check.ENGINE, "no container engine runs here now")
    for item in found:
        name = f"{item.engine.value} (pid {item.pid})"
        if item.cgroup != mount:
            socket = socket_of(item.engine)
            at = f", listens at {socket}" if socket.exists() else ""
            yield well(Check.ENGINE, f"{name} is in /{item.cgroup.relative_to(mount)}{at}", str(item.pid))
        elif wanted & {item.engine, Engine.ALL}:
            yield failure(
                Check.ENGINE,
                f"{name} runs in the root control group, which holds this whole host; "
                "ram-ebpf does not start",
                _OWN_CGROUP,
                str(item.pid),
            )
        else:
            yield warning(
                Check.ENGINE,
                f"{name} runs in the root control group: it can be governed with the whole host only",
                _OWN_CGROUP,
                str(item.pid),
            )

"""From the scopes of a policy or a command line to cgroups that exist on this host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ram_ebpf.policy.scope import CgroupScope, Engine, EngineScope, Posture, Scope
from ram_ebpf.scopes.cgroup import ScopeError, find_cgroup2_mount, resolve
from ram_ebpf.scopes.engines import find_engines


@dataclass
class Selection:
    """The cgroups to govern, and what a person should know about how they were found."""

    cgroups: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, cgroup: Path, note: str) -> None:
        """Adds a cgroup once, however many scopes lead to it."""
        if cgroup not in self.cgroups:
            self.cgroups.append(cgroup)
        self.notes.append(note)


def parse_scope(text: str) -> CgroupScope | EngineScope:
    """`cgroup:PATH` or `engine:NAME` of a command line. Raises ScopeError."""
    kind, colon, value = text.partition(":")
    if not colon or not value or kind not in ("cgroup", "engine"):
        raise ScopeError(
            f"--scope {text}: is no scope of this version; write cgroup:PATH, or engine:docker, "
            "engine:containerd, engine:podman, engine:crio or engine:all"
        )
    if kind == "cgroup":
        return CgroupScope.model_construct(cgroup=value, posture=Posture.STRICT)
    try:
        return EngineScope(engine=Engine(value))
    except ValueError as error:
        known = ", ".join(engine.value for engine in Engine)
        raise ScopeError(f"--scope {text}: there is no engine {value!r}; write one of {known}") from error


def select(scopes: Sequence[Scope]) -> Selection:
    """Finds the cgroups of all scopes. Raises ScopeError for one that this version or host cannot govern."""
    selection = Selection()
    for scope in scopes:
        if isinstance(scope, CgroupScope | EngineScope):
            if scope.posture is not Posture.STRICT:
                raise ScopeError(
                    f"scope {scope.kind}: {scope.target}: posture {scope.posture.value} is not in this "
                    "version; write strict, or leave posture out"
                )
            if isinstance(scope, CgroupScope):
                cgroup = resolve(scope.cgroup)
                selection.add(cgroup, f"cgroup {cgroup}")
            else:
                _select_engine(scope.engine, selection)
        else:
            kind = next(iter(scope.model_dump(exclude={"posture"})))
            raise ScopeError(
                f"scope {kind}: scopes of this kind are not in this version; "
                "write cgroup: PATH or engine: NAME"
            )
    return selection


def _select_engine(engine: Engine, selection: Selection) -> None:
    root = find_cgroup2_mount()
    found = find_engines(engine)
    for item in found:
        if item.cgroup == root:
            raise ScopeError(
                f"{item.engine.value} (pid {item.pid}) runs in the root cgroup, which holds this whole host; "
                "start it in a cgroup of its own, as its systemd unit does"
            )
        selection.add(item.cgroup, f"{item.engine.value} (pid {item.pid}) in {item.cgroup}")
    if not found:
        wanted = "container engine" if engine is Engine.ALL else engine.value
        selection.notes.append(
            f"no {wanted} is running here (looked for dockerd, containerd, crio and podman's API service)"
        )

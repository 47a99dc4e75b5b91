"""From the scopes of a policy or a command line to what they mean on this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from ram_ebpf.policy.messages import explain
from ram_ebpf.policy.scope import (
    Builders,
    BuildersScope,
    CgroupScope,
    ContainerScope,
    DeviceScope,
    Engine,
    EngineScope,
    NetnsScope,
    Posture,
    Scope,
    UnitScope,
)
from ram_ebpf.scopes.cgroup import ScopeError, find_cgroup2_mount, resolve
from ram_ebpf.scopes.device import DeviceTarget
from ram_ebpf.scopes.engines import find_engines
from ram_ebpf.scopes.netns import NetnsTarget
from ram_ebpf.scopes.target import CgroupTarget, Target
from ram_ebpf.scopes.unit import UnitTarget

if TYPE_CHECKING:
    from ram_ebpf.scopes.containers import Containers, RunningContainer
    from ram_ebpf.scopes.cri import CriContainers
    from ram_ebpf.scopes.docker import DockerContainers, DockerPorts

_KINDS = (
    "cgroup:PATH, unit:NAME, device:NAME, netns:NAME, netns:PATH or netns:pid:N, container:NAME, "
    "container:ID or container:label=KEY=VALUE, builders:buildx, builders:kubernetes or builders:any, "
    "or engine:docker, engine:containerd, engine:podman, engine:crio or engine:all"
)
_WRITE = (
    "cgroup: PATH, unit: NAME, device: NAME, netns: NAME, container: NAME, builders: buildx or engine: NAME"
)
_PARSED = ("unit", "device", "netns", "container", "builders")


@dataclass
class Selection:
    """What to govern, and what a person should know about how it was found."""

    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    containers: DockerContainers | None = None  # of the Docker daemon, where a scope names any
    pods: CriContainers | None = None  # those of a Kubernetes node, likewise

    def ports(self) -> DockerPorts | None:
        """Where containers come that may be meant, where a scope names any."""
        from ram_ebpf.scopes.docker import DockerPorts

        return DockerPorts(self.containers) if self.containers is not None else None

    def watches(self) -> list[DockerContainers | CriContainers]:
        """What tells that something has changed."""
        return [watch for watch in (self.containers, self.pods) if watch is not None]

    def add_container(self, wanted: str) -> None:
        """Adds containers by name, identifier or label."""
        from ram_ebpf.scopes.docker import matches

        self._add_containers(
            f"container {wanted}", self._docker(), lambda container: matches(container, wanted)
        )

    def add_builders(self, kind: Builders) -> None:
        """Adds all containers in which images are built. Raises ScopeError as sockets() of cri.py does."""
        from ram_ebpf.scopes.builders import is_builder
        from ram_ebpf.scopes.buildkit import BuildkitTarget

        mount = find_cgroup2_mount()
        if kind is Builders.ANY:
            self.add(BuildkitTarget(mount))
            return
        among = self._pods() if kind is Builders.KUBERNETES else self._docker()
        self._add_containers(f"builders {kind.value}", among, lambda container: is_builder(container, mount))

    def _add_containers(
        self, label: str, among: Containers, is_meant: Callable[[RunningContainer], bool]
    ) -> None:
        from ram_ebpf.scopes.containers import ContainersTarget

        self.add(ContainersTarget(label, among, find_cgroup2_mount(), is_meant))

    def _docker(self) -> DockerContainers:
        # Here, as it takes a while to import; so does gRPC.
        from ram_ebpf.scopes.docker import DockerContainers

        if self.containers is None:
            self.containers = DockerContainers()
            self.containers.start()
        return self.containers

    def _pods(self) -> CriContainers:
        from ram_ebpf.scopes.cri import CriContainers

        if self.pods is None:
            self.pods = CriContainers()
            self.pods.start()
        return self.pods

    def add_cgroup(self, cgroup: Path, note: str) -> None:
        """Adds a cgroup once, however many scopes lead to it."""
        if cgroup not in (t.directory for t in self.targets if isinstance(t, CgroupTarget)):
            self.targets.append(CgroupTarget(cgroup))
        self.notes.append(note)

    def add(self, target: Target) -> None:
        """Adds what may come and go."""
        self.targets.append(target)
        places = target.find()
        if places:
            found = [*map(str, sorted(places.cgroups)), *sorted(f"device {d}" for d in places.devices)]
            self.notes.append(f"{target.label}: {', '.join(found)}")
        else:
            self.notes.append(f"{target.label}: is not there; it is governed as soon as it is")


def parse_scope(text: str) -> Scope:
    """A scope of a command line, `KIND:VALUE`. Raises ScopeError."""
    kind, colon, value = text.partition(":")
    if not colon or not value or kind not in ("cgroup", "engine", *_PARSED):
        raise ScopeError(f"--scope {text}: is no scope of this version; write {_KINDS}")
    if kind == "cgroup":
        return CgroupScope.model_construct(cgroup=value, posture=Posture.STRICT)
    if kind == "engine":
        try:
            return EngineScope(engine=Engine(value))
        except ValueError as error:
            known = ", ".join(engine.value for engine in Engine)
            raise ScopeError(f"--scope {text}: there is no engine {value!r}; write one of {known}") from error
    try:
        return _SCOPE.validate_python({kind: value})
    except ValidationError as error:
        _, problem, cure = explain(error.errors(include_url=False)[0])
        raise ScopeError(f"--scope {text}: {problem}; {cure}") from error


_Supported = CgroupScope | EngineScope | UnitScope | NetnsScope | DeviceScope | ContainerScope | BuildersScope
_SCOPE: TypeAdapter[Scope] = TypeAdapter(Scope)


def select(scopes: Sequence[Scope]) -> Selection:
    """Finds out what all scopes mean. Raises ScopeError for one that this version or host cannot govern."""
    selection = Selection()
    for scope in scopes:
        if not isinstance(scope, _Supported):
            raise ScopeError(
                f"scope {scope.kind}: scopes of this kind are not in this version; write {_WRITE}"
            )
        if scope.posture is not Posture.STRICT:
            raise ScopeError(
                f"scope {scope.kind}: {scope.target}: posture {scope.posture.value} is not in this "
                "version; write strict, or leave posture out"
            )
        if isinstance(scope, CgroupScope):
            cgroup = resolve(scope.cgroup)
            selection.add_cgroup(cgroup, f"cgroup {cgroup}")
        elif isinstance(scope, EngineScope):
            _select_engine(scope.engine, selection)
        elif isinstance(scope, UnitScope):
            selection.add(UnitTarget(scope.unit, find_cgroup2_mount()))
        elif isinstance(scope, NetnsScope):
            selection.add(NetnsTarget(scope.netns))
        elif isinstance(scope, ContainerScope):
            selection.add_container(scope.container)
        elif isinstance(scope, BuildersScope):
            selection.add_builders(scope.builders)
        else:
            selection.add(DeviceTarget(scope.device))
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
        selection.add_cgroup(item.cgroup, f"{item.engine.value} (pid {item.pid}) in {item.cgroup}")
    if not found:
        wanted = "container engine" if engine is Engine.ALL else engine.value
        selection.notes.append(
            f"no {wanted} is running here (looked for dockerd, containerd, crio and podman's API service)"
        )

"""From the scopes of a policy or a command line to what they mean on this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from ram_ebpf.policy.messages import explain
from ram_ebpf.policy.scope import (
    Builders,
    BuildersScope,
    CgroupScope,
    ContainerScope,
    Engine,
    EngineScope,
    HostOptions,
    HostScope,
    NetnsScope,
    Posture,
    Scope,
    UnitScope,
)
from ram_ebpf.policy.terms import STRICT, Terms
from ram_ebpf.scopes.cgroup import ScopeError, find_cgroup2_mount, resolve
from ram_ebpf.scopes.cgroup_watch import CgroupWatch
from ram_ebpf.scopes.device import DeviceTarget
from ram_ebpf.scopes.engines import EngineTarget, find_engines
from ram_ebpf.scopes.host import HostTarget
from ram_ebpf.scopes.netns import NetnsTarget
from ram_ebpf.scopes.runs import WATCHED, RunsTarget
from ram_ebpf.scopes.target import CgroupTarget, Target, Watch
from ram_ebpf.scopes.unit import UnitTarget

if TYPE_CHECKING:
    from ram_ebpf.scopes.containers import Containers, RunningContainer
    from ram_ebpf.scopes.cri import CriContainers
    from ram_ebpf.scopes.docker import DockerContainers, DockerPorts

_KINDS = (
    "cgroup:PATH, unit:NAME, device:NAME, netns:NAME, netns:PATH or netns:pid:N, container:NAME, "
    "container:ID or container:label=KEY=VALUE, builders:buildx, builders:kubernetes or builders:any, "
    "engine:docker, engine:containerd, engine:podman, engine:crio or engine:all, or host"
)
_PARSED = ("unit", "device", "netns", "container", "builders")


@dataclass
class Selection:
    """What to govern, and what a person should know about how it was found."""

    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cgroup_root: Path | None = None
    containers: DockerContainers | None = None  # of the Docker daemon, where a scope names any
    pods: CriContainers | None = None  # those of a Kubernetes node, likewise
    cgroup_watch: CgroupWatch | None = None
    terms: Terms = STRICT  # of what is added next

    def following(self, before: Selection) -> list[tuple[Target, Terms]]:
        """The targets with what applies there. Where `before` had the same one, that is used on: it may know
        of places that take a while to find."""
        known = {(type(target), target.label): target for target in before.targets}
        found = [(known.get((type(target), target.label), target), target.terms) for target in self.targets]
        self.targets = [target for target, _ in found]
        return found

    def ports(self) -> DockerPorts | None:
        """Where containers come that may be meant, where a scope names any."""
        from ram_ebpf.scopes.docker import DockerPorts

        return DockerPorts(self.containers) if self.containers is not None else None

    def watches(self) -> list[Watch]:
        """What tells that something has changed."""
        watches: list[Watch] = [watch for watch in (self.containers, self.pods) if watch is not None]
        if any(isinstance(target, EngineTarget | RunsTarget | UnitTarget) for target in self.targets):
            if self.cgroup_watch is None:
                mount = self.cgroup_root or find_cgroup2_mount()
                self.cgroup_watch = CgroupWatch(mount / name for name in WATCHED)
            watches.append(self.cgroup_watch)
        return watches

    def has_containers(self) -> bool:
        """Whether containers will come that are governed at devices."""
        return self.containers is not None or self.pods is not None

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

        # By the same memory as those who let pass what is known: what one has found, the other one finds.
        networks = among.networks if among is self.containers else None
        self.add(ContainersTarget(label, among, find_cgroup2_mount(), is_meant, networks))

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
            target = CgroupTarget(cgroup)
            target.terms = self.terms
            self.targets.append(target)
        self.notes.append(note)

    def add(self, target: Target) -> None:
        """Adds what may come and go."""
        target.terms = self.terms
        self.targets.append(target)
        places = target.find()
        if places:
            found = [*map(str, sorted(places.cgroups)), *sorted(f"device {d}" for d in places.devices)]
            self.notes.append(f"{target.label}: {', '.join(found)}")
        else:
            self.notes.append(f"{target.label}: is not there; it is governed as soon as it is")


def parse_scope(text: str, posture: Posture | None = None) -> Scope:
    """A scope of a command line, `KIND:VALUE` or `host`. Raises ScopeError.

    `posture`: None for the one that is usual for the kind.
    """
    if text == "host":
        return HostScope(host=HostOptions(posture=posture or Posture.REGISTRIES))
    kind, colon, value = text.partition(":")
    if not colon or not value or kind not in ("cgroup", "engine", *_PARSED):
        raise ScopeError(f"--scope {text}: is no scope of this version; write {_KINDS}")
    more = {} if posture is None else {"posture": posture}
    if kind == "cgroup":
        return CgroupScope.model_construct(cgroup=value, posture=posture or Posture.STRICT)
    if kind == "engine":
        try:
            return EngineScope(engine=Engine(value), posture=posture or Posture.STRICT)
        except ValueError as error:
            known = ", ".join(engine.value for engine in Engine)
            raise ScopeError(f"--scope {text}: there is no engine {value!r}; write one of {known}") from error
    try:
        return _SCOPE.validate_python({kind: value, **more})
    except ValidationError as error:
        _, problem, cure = explain(error.errors(include_url=False)[0])
        raise ScopeError(f"--scope {text}: {problem}; {cure}") from error


_OF_CGROUPS = (CgroupScope, EngineScope, UnitScope)
_SCOPE: TypeAdapter[Scope] = TypeAdapter(Scope)


def select(
    scopes: Sequence[Scope], cgroup_root: Path | None = None, before: Selection | None = None
) -> Selection:
    """Finds out what all scopes mean. Raises ScopeError for one that this host cannot govern.

    `cgroup_root`: the directory that stands for the whole host; None: the root of the control groups.
    `before`: of an earlier policy, whose knowledge of containers is used on.
    """
    selection = Selection(cgroup_root=cgroup_root)
    if before is not None:
        selection.containers, selection.pods = before.containers, before.pods
        selection.cgroup_watch = before.cgroup_watch
    for index, scope in enumerate(scopes):
        add_scope(selection, scope, index)
    return selection


def add_scope(selection: Selection, scope: Scope, index: int) -> None:
    """Adds one, which stands at this place among the policy's scopes. Raises ScopeError."""
    cgroup_root = selection.cgroup_root
    selection.terms = Terms.of(scope, index)
    if isinstance(scope, CgroupScope):
        strict = scope.posture is Posture.STRICT
        cgroup = resolve(scope.cgroup, may_be_root=not strict)
        selection.add_cgroup(cgroup, f"cgroup {cgroup}")
    elif isinstance(scope, EngineScope):
        _select_engine(scope.engine, selection)
        if scope.runs is not None:
            selection.terms = replace(selection.terms, posture=scope.runs)
            selection.add(RunsTarget(scope.engine, cgroup_root or find_cgroup2_mount()))
    elif isinstance(scope, HostScope):
        selection.add(HostTarget(cgroup_root or find_cgroup2_mount()))
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


def without_cgroups(scopes: Sequence[Scope]) -> tuple[Scope, ...]:
    """The same where the kernel cannot tell the sockets of one cgroup from another's: the whole host instead.

    It allows what any of the scopes that it stands for allowed, and is in posture registries.
    """
    kept = [scope for scope in scopes if not isinstance(scope, _OF_CGROUPS)]
    if len(kept) == len(scopes):
        return tuple(scopes)
    more = [entry for scope in scopes if isinstance(scope, _OF_CGROUPS) for entry in scope.registries]
    more += [entry for scope in kept if isinstance(scope, HostScope) for entry in scope.registries]
    options = HostOptions(posture=Posture.REGISTRIES)
    if more:
        options = options.model_copy(update={"registries": tuple(dict.fromkeys(more))})
    return (HostScope(host=options), *(scope for scope in kept if not isinstance(scope, HostScope)))


def _select_engine(engine: Engine, selection: Selection) -> None:
    root = find_cgroup2_mount()
    for item in find_engines(engine):
        if item.cgroup == root:
            raise ScopeError(
                f"{item.engine.value} (pid {item.pid}) runs in the root cgroup, which holds this whole host; "
                "start it in a cgroup of its own, as its systemd unit does"
            )
        selection.notes.append(f"{item.engine.value} (pid {item.pid}) in {item.cgroup}")
    target = EngineTarget(engine, root)
    target.terms = selection.terms
    selection.targets.append(target)
    if not target.find():
        wanted = "container engine" if engine is Engine.ALL else engine.value
        selection.notes.append(f"no {wanted} is running here; it is governed as soon as it is")

"""From the scopes of a policy or a command line to what they mean on this host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ram_ebpf.policy.choices import Builders, Engine, Posture
from ram_ebpf.policy.enforced import EnforcedScope, ScopeLike
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
        if self.containers is None:
            return None
        from ram_ebpf.scopes.docker import DockerPorts

        return DockerPorts(self.containers)

    def watches(self) -> list[Watch]:
        """What tells that something has changed."""
        watches: list[Watch] = [watch for watch in (self.containers, self.pods) if watch is not None]
        cgroups = [target for target in self.targets if isinstance(target, CgroupTarget)]
        directories = [target.directory.parent for target in cgroups]
        if any(isinstance(target, EngineTarget | RunsTarget | UnitTarget) for target in self.targets):
            mount = self.cgroup_root or find_cgroup2_mount()
            directories += (mount / name for name in WATCHED)
        if directories:
            if self.cgroup_watch is None:
                self.cgroup_watch = CgroupWatch(())
            self.cgroup_watch.add(directories)
            for target in cgroups:
                target.watch = self.cgroup_watch
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


_OF_CGROUPS = ("cgroup", "engine", "unit")
_OF_CGROUPS_AND_DEVICES = ("container", "builders")
S = TypeVar("S", bound="ScopeLike")


def select(
    scopes: Sequence[ScopeLike], cgroup_root: Path | None = None, before: Selection | None = None
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


def add_scope(selection: Selection, scope: ScopeLike, index: int) -> None:
    """Adds one, which stands at this place among the policy's scopes. Raises ScopeError."""
    cgroup_root = selection.cgroup_root
    selection.terms = Terms.of(scope, index)
    kind, target = scope.kind, scope.target
    if kind == "cgroup":
        strict = scope.posture is Posture.STRICT
        cgroup = resolve(target, may_be_root=not strict)
        selection.add_cgroup(cgroup, f"cgroup {cgroup}")
    elif kind == "engine":
        _select_engine(Engine(target), selection)
        runs: Posture | None = getattr(scope, "runs", None)
        if runs is not None:
            selection.terms = replace(selection.terms, posture=runs)
            selection.add(RunsTarget(Engine(target), cgroup_root or find_cgroup2_mount()))
    elif kind == "host":
        selection.add(HostTarget(cgroup_root or find_cgroup2_mount()))
    elif kind == "unit":
        selection.add(UnitTarget(target, find_cgroup2_mount()))
    elif kind == "netns":
        selection.add(NetnsTarget(target))
    elif kind == "container":
        selection.add_container(target)
    elif kind == "builders":
        selection.add_builders(Builders(target))
    else:
        selection.add(DeviceTarget(target))


def without_cgroups(scopes: Sequence[S]) -> tuple[S | EnforcedScope, ...]:
    """The same where the kernel cannot tell the sockets of one cgroup from another's: the whole host instead.

    It allows what any of the scopes that it stands for allowed, and is in posture registries. Containers are
    still governed at their devices as their scopes say, and as the host is where they have none.
    """
    unmatched = (*_OF_CGROUPS, *_OF_CGROUPS_AND_DEVICES)
    if not any(scope.kind in unmatched for scope in scopes):
        return tuple(scopes)
    replaced = [scope for scope in scopes if scope.kind in unmatched]
    replaced += [scope for scope in scopes if scope.kind == "host"]
    more = dict.fromkeys(entry for scope in replaced for entry in scope.registries)
    host = EnforcedScope("host", "", Posture.REGISTRIES, tuple(more))
    return (host, *(scope for scope in scopes if scope.kind not in (*_OF_CGROUPS, "host")))


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

"""The scopes of a policy: where it is enforced, and in what posture.

Every kind that the file may name validates here. Whether this version can attach to it, and whether it
exists on this host, is for the code that attaches to say.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, ClassVar

from pydantic import Discriminator, PlainValidator, Tag

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.choices import Builders as Builders
from ram_ebpf.policy.choices import Engine as Engine
from ram_ebpf.policy.choices import Posture as Posture
from ram_ebpf.policy.fields import choice, listed, refuse, text_between, text_like
from ram_ebpf.policy.registry import RegistryEntry
from ram_ebpf.policy.words import alternatives, closest, describe

PostureField = Annotated[Posture, choice(Posture)]
MoreRegistries = Annotated[tuple[RegistryEntry, ...], listed("[quay]")]


class ScopeModel(PolicyModel):
    """A scope named by one key, `kind`, whose value is `target`."""

    kind: ClassVar[str]
    posture: PostureField = Posture.STRICT
    registries: MoreRegistries = ()
    """Allowed here beside those of the whole policy."""

    @property
    def target(self) -> str:
        """What the kind's key says, as text."""
        value = getattr(self, self.kind)
        return str(value.value if isinstance(value, Enum) else value)


class CgroupScope(ScopeModel):
    """A control group (version 2), by its path."""

    kind: ClassVar[str] = "cgroup"
    cgroup: Annotated[
        str,
        text_like(
            r"(?!.*/\.\.(?:/|$))/[!-~]{0,4095}",
            "an absolute path of a control group",
            "write one, such as /system.slice/docker.service",
        ),
    ]


class EngineScope(ScopeModel):
    """A container engine, or all that are found."""

    kind: ClassVar[str] = "engine"
    engine: Annotated[Engine, choice(Engine)]
    runs: Annotated[Posture | None, choice(Posture)] = None
    """The posture of what it runs, containers and build steps; None: that is not governed."""


class BuildersScope(ScopeModel):
    """Builders in containers, whichever are started."""

    kind: ClassVar[str] = "builders"
    builders: Annotated[Builders, choice(Builders)]


class UnitScope(ScopeModel):
    """A systemd unit that has a control group."""

    kind: ClassVar[str] = "unit"
    unit: Annotated[
        str,
        text_like(
            r"[A-Za-z0-9:_.\\@-]{1,240}\.(?:service|slice|scope|socket|mount|swap)",
            "the full name of a systemd unit with a control group",
            "write one, such as docker.service",
        ),
    ]


class NetnsScope(ScopeModel):
    """A network namespace, by name or path."""

    kind: ClassVar[str] = "netns"
    netns: Annotated[str, text_between(1, 255)]


class DeviceScope(ScopeModel):
    """A network device; the kernel limits its name to 15 octets."""

    kind: ClassVar[str] = "device"
    device: Annotated[
        str,
        text_like(
            r"(?!\.{1,2}$)[!-.0-9;-~]{1,15}",
            "the name of a network device",
            "write one of 1 to 15 characters, such as eth0",
        ),
    ]


class ContainerScope(ScopeModel):
    """Containers, by name, identifier or label."""

    kind: ClassVar[str] = "container"
    container: Annotated[
        str,
        text_like(
            r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}|label=[!-<>-~]{1,255}(=[!-~]{0,255})?",
            "the name, identifier or label of a container",
            "write one, such as buildkit0 or label=team=builds",
        ),
    ]


class HostOptions(PolicyModel):
    """What may be said of the host scope."""

    posture: PostureField = Posture.REGISTRIES
    registries: MoreRegistries = ()


class HostScope(PolicyModel):
    """The whole host. The posture is inside, as there is nothing else to name."""

    kind: ClassVar[str] = "host"
    target: ClassVar[str] = ""
    host: HostOptions

    @property
    def posture(self) -> Posture:
        """As for the other scopes."""
        return self.host.posture

    @property
    def registries(self) -> tuple[RegistryEntry, ...]:
        """As for the other scopes."""
        return self.host.registries


_KINDS: dict[str, type[PolicyModel]] = {
    model.kind: model
    for model in (
        CgroupScope,
        EngineScope,
        BuildersScope,
        HostScope,
        UnitScope,
        NetnsScope,
        DeviceScope,
        ContainerScope,
    )
}
SCOPE_MODELS: dict[str, type[PolicyModel]] = {f"@scope {kind}": model for kind, model in _KINDS.items()}
"""By tag. A tag stands in pydantic's error locations, and starts with a character that no key has."""


def _tag(value: object) -> str:
    if isinstance(value, ScopeModel | HostScope):
        return f"@scope {value.kind}"
    if isinstance(value, dict):
        named = [kind for kind in _KINDS if kind in value]
        if len(named) == 1:
            return f"@scope {named[0]}"
    return "@none"


def _refuse(value: object) -> HostScope:
    example = "write one, such as engine: docker"
    if not isinstance(value, dict):
        refuse(f"{describe(value)} where a scope belongs", example)
    named = [kind for kind in _KINDS if kind in value]
    if named:
        refuse(
            f"one scope names {alternatives(named).replace(' or ', ' and ')}", "write a list item for each"
        )
    near = next((near for key in value if (near := closest(str(key), _KINDS))), None)
    refuse(
        f"a scope needs one of {alternatives(_KINDS)}",
        f"did you mean {near}?" if near else example,
    )


Scope = Annotated[
    Annotated[CgroupScope, Tag("@scope cgroup")]
    | Annotated[EngineScope, Tag("@scope engine")]
    | Annotated[BuildersScope, Tag("@scope builders")]
    | Annotated[HostScope, Tag("@scope host")]
    | Annotated[UnitScope, Tag("@scope unit")]
    | Annotated[NetnsScope, Tag("@scope netns")]
    | Annotated[DeviceScope, Tag("@scope device")]
    | Annotated[ContainerScope, Tag("@scope container")]
    | Annotated[HostScope, PlainValidator(_refuse), Tag("@none")],
    Discriminator(_tag),
]

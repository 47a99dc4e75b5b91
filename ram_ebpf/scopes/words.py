"""Scopes as they are written on a command line."""

from __future__ import annotations

from functools import cache

from pydantic import TypeAdapter, ValidationError

from ram_ebpf.policy.choices import Posture
from ram_ebpf.policy.messages import explain
from ram_ebpf.policy.scope import CgroupScope, Engine, EngineScope, HostOptions, HostScope, Scope
from ram_ebpf.scopes.cgroup import ScopeError

_KINDS = (
    "cgroup:PATH, unit:NAME, device:NAME, netns:NAME, netns:PATH or netns:pid:N, container:NAME, "
    "container:ID or container:label=KEY=VALUE, builders:buildx, builders:kubernetes or builders:any, "
    "engine:docker, engine:containerd, engine:podman, engine:crio or engine:all, or host"
)
_PARSED = ("unit", "device", "netns", "container", "builders")


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
        return _adapter().validate_python({kind: value, **more})
    except ValidationError as error:
        _, problem, cure = explain(error.errors(include_url=False)[0])
        raise ScopeError(f"--scope {text}: {problem}; {cure}") from error


@cache
def _adapter() -> TypeAdapter[Scope]:
    return TypeAdapter(Scope)

"""Proxies of engines: what is behind one is not told by the address that an engine connects to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.engine_settings import DockerSettings, Process, SettingsError
from ram_ebpf.doctor.finding import Check, Finding, warning, well
from ram_ebpf.policy.scope import Engine

_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Use:
    """One engine's proxy. `where`: the variables or keys that name it."""

    engine: str
    pid: int
    proxy: str
    where: tuple[str, ...]


def examine(case: Case) -> Iterator[Finding]:
    """Of all that run. For root, who may see the environment of others."""
    found: list[Use] = []
    for item in case.engines:
        process = Process(item.pid)
        named = named_in(process.environment())
        if item.engine is Engine.DOCKER:
            with contextlib.suppress(SettingsError):  # docker_plugin.py tells of it
                named.update(DockerSettings.of(process).proxies)
        found += uses(item.engine.value, item.pid, named)
    yield from of_uses(found)


def named_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of an environment; Go and curl read small letters as well."""
    names = (*_VARIABLES, *map(str.lower, _VARIABLES))
    return {name: environment[name] for name in names if environment.get(name)}


def uses(engine: str, pid: int, named: Mapping[str, str]) -> Iterator[Use]:
    """One for each proxy, however often it is named."""
    shown = {name: without_password(url) for name, url in named.items()}
    for proxy in dict.fromkeys(shown.values()):
        yield Use(engine, pid, proxy, tuple(name for name, other in shown.items() if other == proxy))


def without_password(url: str) -> str:
    """Host and port of a proxy, which may be written with a scheme or without."""
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return "something unreadable"
    if not host:
        return "something unreadable"
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"


def of_uses(found: Iterable[Use]) -> Iterator[Finding]:
    """A warning for each."""
    found = list(found)
    if not found:
        yield well(Check.PROXY, "no engine that runs fetches through a proxy")
    for item in found:
        named = ", ".join(item.where)
        yield warning(
            Check.PROXY,
            f"{item.engine} (pid {item.pid}) fetches through the proxy {item.proxy} ({named}): "
            "ram-ebpf sees the proxy's address and not the registry's",
            f"list the proxy in the policy; or take {named} out of what the engine is started with",
            subject=f"{item.pid} {item.proxy}",
        )

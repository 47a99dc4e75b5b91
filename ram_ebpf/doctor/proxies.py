"""Proxies of engines: whether the policy lists them, and whether what they are asked for can be read."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.engine_settings import DockerSettings, Process, SettingsError
from ram_ebpf.doctor.finding import Check, Finding, warning, well
from ram_ebpf.policy.scope import Engine

_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
# As Go's net/http takes them; without a scheme it is http.
_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True)
class Proxy:
    """Where a proxy is. `scheme`: how it is spoken to. The host is empty where none can be read."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """Of a URL, or a host with or without a port. A user's name and password are left out."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            return cls(parts.scheme, parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80))
        except ValueError:
            return cls("http", "", 80)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if host else "that cannot be read"


@dataclass(frozen=True)
class Use:
    """One engine's proxy. `where`: the variables or keys that name it."""

    engine: str
    pid: int
    proxy: Proxy
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
    yield from of_uses(case, found)


def named_in(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of an environment; Go and curl read small letters as well."""
    names = (*_VARIABLES, *map(str.lower, _VARIABLES))
    return {name: environment[name] for name in names if environment.get(name)}


def uses(engine: str, pid: int, named: Mapping[str, str]) -> Iterator[Use]:
    """One for each proxy, however often it is named."""
    proxies = {name: Proxy.parse(url) for name, url in named.items()}
    for proxy in dict.fromkeys(proxies.values()):
        yield Use(engine, pid, proxy, tuple(name for name, other in proxies.items() if other == proxy))


def of_uses(case: Case, found: Iterable[Use]) -> Iterator[Finding]:
    """One for each."""
    found = list(found)
    if not found:
        yield well(Check.PROXY, "no engine that runs fetches through a proxy")
    for item in found:
        yield _of_use(case, item)


def _of_use(case: Case, use: Use) -> Finding:
    named = ", ".join(use.where)
    title = f"{use.engine} (pid {use.pid}) fetches through the proxy {use.proxy} ({named})"
    subject = f"{use.pid} {use.proxy}"
    elsewhere = f"take {named} out of what the engine is started with"
    if not _is_listed(case, use.proxy, as_proxy=True):
        if _is_listed(case, use.proxy, as_proxy=False):
            return warning(
                Check.PROXY,
                f"{title}, which the policy allows as a registry: what it is asked for is not judged, so it "
                "may lead anywhere",
                f"list it under proxies: in the policy, and not under registries:; or {elsewhere}",
                subject,
            )
        return warning(
            Check.PROXY,
            f"{title}, which the policy does not list: strict scopes are refused there",
            f"list the proxy in the policy, under proxies:; or {elsewhere}",
            subject,
        )
    if use.proxy.scheme != "http":
        return warning(
            Check.PROXY,
            f"{title} by {use.proxy.scheme}, which hides what it is asked for and is refused",
            f"write http://{use.proxy} in {named}",
            subject,
        )
    return well(Check.PROXY, f"{title}, which the policy lists: what it is asked for is judged", subject)


def _is_listed(case: Case, proxy: Proxy, as_proxy: bool) -> bool:
    """`as_proxy`: under `proxies`; else under `registries`."""
    try:
        address = ipaddress.ip_address(proxy.host)
    except ValueError:
        rules = (rule for rule in case.rules_for(proxy.host) if not rule.deny)
        return any(rule.proxy == as_proxy and proxy.port in rule.ports for rule in rules)
    return case.allows_address(address, proxy.port, as_proxy)

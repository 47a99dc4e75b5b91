"""Mirrors that engines ask before the registry itself, and whether the policy allows them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from urllib.parse import urlsplit

from ram_ebpf.doctor.case import Case
from ram_ebpf.doctor.engine_settings import (
    Mirror,
    SettingsError,
    containerd_mirrors,
    docker_mirrors,
    docker_processes,
    podman_mirrors,
)
from ram_ebpf.doctor.finding import Check, Finding, warning, well
from ram_ebpf.policy.words import plural

_PORTS = {"http": 80, "https": 443}


def examine(case: Case) -> Iterator[Finding]:
    """Those of Docker Engine, podman and containerd. What cannot be read is told as well."""
    sources: list[Callable[[], Iterable[Mirror]]] = [podman_mirrors, containerd_mirrors]
    sources += [partial(docker_mirrors, process) for process in docker_processes(case.engines)]
    found: list[Mirror] = []
    for source in sources:
        try:
            found += source()
        except SettingsError as error:
            yield warning(Check.MIRROR, f"settings that cannot be read: {error}", "mend the file", str(error))
    yield from of_mirrors(case, dict.fromkeys(found))


def of_mirrors(case: Case, found: Iterable[Mirror]) -> Iterator[Finding]:
    """A warning for each that is refused everywhere."""
    found = list(found)
    refused = [mirror for mirror in found if not _is_allowed(case, mirror.place)]
    for mirror in refused:
        host, port = host_and_port(mirror.place)
        yield warning(
            Check.MIRROR,
            f"{mirror.engine} asks the mirror {host}:{port} first ({mirror.file}), which the policy does not "
            "allow: each pull tries it in vain",
            f"allow it in the policy (host: {host}, ports: [{port}]), or take it out of {mirror.file}",
            subject=mirror.place,
        )
    if not found:
        yield well(Check.MIRROR, "engines ask no mirrors")
    elif not refused:
        yield well(Check.MIRROR, f"the policy allows {plural(len(found), 'mirror')} that engines ask")


def host_and_port(place: str) -> tuple[str, int]:
    """Of a URL, or of a host with or without a port and a path. The host is empty when that cannot be."""
    try:
        parts = urlsplit(place if "://" in place else f"https://{place}")
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 443)
    except ValueError:
        return "", 443


def _is_allowed(case: Case, place: str) -> bool:
    host, port = host_and_port(place)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        rules = (rule for rule in case.rules_for(host) if not rule.deny and not rule.proxy)
        return any(port in rule.ports for rule in rules)
    return case.allows_address(address, port)

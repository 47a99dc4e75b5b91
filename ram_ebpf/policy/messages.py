"""Pydantic's findings in the words of this house: what is wrong, and what would be right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ram_ebpf.policy.authorization import DockerOptions
from ram_ebpf.policy.connections import Connections
from ram_ebpf.policy.control import ControlOptions
from ram_ebpf.policy.document import PathPart
from ram_ebpf.policy.export import ExportOptions, OtlpExport, SyslogExport
from ram_ebpf.policy.fields import HOUSE_ERROR
from ram_ebpf.policy.log import LogOptions
from ram_ebpf.policy.metrics import Metrics
from ram_ebpf.policy.model import DnsOptions, Policy, Resolver
from ram_ebpf.policy.proxies import PROXY_MODELS
from ram_ebpf.policy.recognition import Recognition
from ram_ebpf.policy.refusals import Refusals
from ram_ebpf.policy.registry import ENTRY_MODELS, AlsoHost
from ram_ebpf.policy.scope import SCOPE_MODELS, HostOptions
from ram_ebpf.policy.words import closest, describe, show

# The model that a mapping was checked against, by the last name in its location.
_MODELS: dict[str, type[BaseModel]] = {
    **ENTRY_MODELS,
    **SCOPE_MODELS,
    **PROXY_MODELS,
    "dns": DnsOptions,
    "connections": Connections,
    "recognition": Recognition,
    "docker": DockerOptions,
    "refusals": Refusals,
    "control": ControlOptions,
    "metrics": Metrics,
    "log": LogOptions,
    "export": ExportOptions,
    "syslog": SyslogExport,
    "otlp": OtlpExport,
    "host": HostOptions,
    "also": AlsoHost,
    "@list": Resolver,
}
_MAPPINGS = {
    "dns": "dns: { grace_seconds: 30 }",
    "connections": "connections: { read_names: true }",
    "recognition": "recognition: { unknown: probe }",
    "docker": "docker: { authorization: true }",
    "refusals": "refusals: { responder: on }",
    "control": "control: { group: ram-ebpf }",
    "metrics": "metrics: { port: 9469 }",
    "log": "log: { lines_per_minute: 60 }",
    "export": "export: { syslog: { unix: /dev/log } }",
    "syslog": "syslog: { unix: /dev/log }",
    "otlp": "otlp: { endpoint: http://10.0.0.9:4318/v1/logs }",
    "host": "host: { posture: registries }",
    "also": "a host name",
}
_EXAMPLES = {
    "version": "version: 1",
    "registries": "a list, such as registries: [docker-hub]",
    "address": "address: 10.0.0.53",
    "host": "host: and a host name",
    "ports": "ports: [3128]",
    "endpoint": "endpoint: http://10.0.0.9:4318/v1/logs",
}


def explain(error: Mapping[str, Any]) -> tuple[tuple[PathPart, ...], str, str]:
    """Path, problem and cure of one of the dictionaries of ValidationError.errors()."""
    location: tuple[PathPart, ...] = error["loc"]
    path = tuple(part for part in location if not (isinstance(part, str) and part.startswith("@")))
    if error["type"] == HOUSE_ERROR:
        return path, error["ctx"]["problem"], error["ctx"]["cure"]
    if error["type"] == "missing":
        key = str(location[-1])
        return path, f"{key} is missing", f"write {_EXAMPLES.get(key, key + ':')}"
    if error["type"] == "extra_forbidden":
        return path, *_unknown_key(location)
    # What is left: something else where a model wants a mapping.
    example = _MAPPINGS.get(_last_name(path), "keys and values")
    return path, f"{describe(error['input'])} where a mapping belongs", f"write {example}"


def _unknown_key(location: tuple[PathPart, ...]) -> tuple[str, str]:
    key = str(location[-1])
    parent = _last_name(location[:-1])
    if parent == "@scope host" and key in HostOptions.model_fields:  # where the other scopes have it
        example = _MAPPINGS["host"] if key == "posture" else f"host: {{ {key}: ... }}"
        return f"{show(key)} is not a known key", f"write it inside: {example}"
    known = list(_MODELS.get(parent, Policy).model_fields)
    near = closest(key, known)
    cure = f"did you mean {near}?" if near else f"the keys known here: {', '.join(known)}"
    return f"{show(key)} is not a known key", cure


def _last_name(location: tuple[PathPart, ...]) -> str:
    return next((part for part in reversed(location) if isinstance(part, str)), "")

"""The items of `denied:`, each a host pattern that stands alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainValidator, ValidationInfo

from ram_ebpf.policy.catalogue import catalogue_of
from ram_ebpf.policy.fields import refuse
from ram_ebpf.policy.names import HostPattern, PatternError
from ram_ebpf.policy.words import describe, in_yaml, show

_EXAMPLE = "such as public.corp.example"


def _denied(value: object, info: ValidationInfo) -> HostPattern:
    if isinstance(value, HostPattern):
        return value
    if not isinstance(value, str):
        refuse(f"{describe(value)} where a host pattern belongs", _cure(value))
    try:
        pattern = HostPattern.parse(value)
    except PatternError as error:
        refuse(error.problem, error.cure_alone)
    # As a pattern, an id is a name of one label: denying that would leave the whole registry allowed.
    if len(pattern.labels) == 1 and (registry := catalogue_of(info).by_id.get(value)):
        host = in_yaml(registry.required_hosts[0].host.text)
        refuse(f"{show(value)} is a catalogue id", f"write host patterns, such as {host}")
    return pattern


def _cure(value: object) -> str:
    host = value.get("host") if isinstance(value, dict) else None
    try:
        pattern = HostPattern.parse(host).text if isinstance(host, str) else None
    except PatternError:
        pattern = None
    return f"write the host pattern alone{f': {in_yaml(pattern)}' if pattern else f', {_EXAMPLE}'}"


DeniedField = Annotated[HostPattern, PlainValidator(_denied)]

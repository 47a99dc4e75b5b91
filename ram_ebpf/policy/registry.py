"""The entries of `registries:`: by catalogue id, by host pattern, or by address."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Discriminator, PlainValidator, Tag, ValidationInfo

from ram_ebpf.policy.actions import ALL_ACTIONS, Actions
from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.catalogue import Catalogue, catalogue_of
from ram_ebpf.policy.connections import ServerName
from ram_ebpf.policy.fields import (
    HostField,
    NetworkField,
    OwnPorts,
    Ports,
    Private,
    choice,
    listed,
    refuse,
)
from ram_ebpf.policy.names import HostPattern, PatternError
from ram_ebpf.policy.words import alternatives, closest, describe, in_yaml, show


def _known_id(value: object, info: ValidationInfo) -> str:
    catalogue = catalogue_of(info)
    if not isinstance(value, str) or value not in catalogue.by_id:
        text = value if isinstance(value, str) else describe(value)
        refuse(f"{show(text)} is not in the catalogue", _cure_for_id(text, catalogue))
    return value


def _cure_for_id(text: str, catalogue: Catalogue) -> str:
    if owner := catalogue.owner_of(text):
        return f"write {owner} for that registry, or host: {text} for that host alone"
    if near := closest(text, catalogue.by_id):
        return f"did you mean {near}?"
    try:
        pattern = HostPattern.parse(text).text
    except PatternError:
        return "write host: and the registry's host name"
    return f"write host: {in_yaml(pattern)}"


def _from_text(key: str) -> BeforeValidator:
    """A bare string is short for a mapping with one key."""
    return BeforeValidator(lambda value: {key: value} if isinstance(value, str) else value)


class CatalogueEntry(PolicyModel):
    """A registry of the catalogue, with all the hosts that it needs."""

    id: Annotated[str, PlainValidator(_known_id)]
    actions: Actions = ALL_ACTIONS
    """What may be done there, as far as an engine says it; the kernel looks at none of this."""


class AlsoHost(PolicyModel):
    """One more host of a registry; without ports of its own it has its entry's."""

    host: HostField
    ports: OwnPorts = None


class HostEntry(PolicyModel):
    """A registry by host pattern."""

    host: HostField
    ports: Ports = (443,)
    also: Annotated[
        tuple[Annotated[AlsoHost, _from_text("host")], ...], listed("[blobs.registry.example.com]")
    ] = ()
    private: Private = False
    """Whether the hosts of this entry are expected at private addresses (see special.py), or at which."""
    actions: Actions = ALL_ACTIONS
    sni: Annotated[ServerName, choice(ServerName)] = ServerName.REQUIRED
    """Whether TLS connections to the hosts of this entry must say their name."""


class AddressEntry(PolicyModel):
    """A registry by address, for what is named by address in image references."""

    address: NetworkField
    ports: Ports = (443,)
    actions: Actions = ALL_ACTIONS


ENTRY_MODELS: dict[str, type[PolicyModel]] = {
    "@id": CatalogueEntry,
    "@host": HostEntry,
    "@address": AddressEntry,
}
"""By tag, see SCOPE_MODELS."""


_KEYS = tuple(tag.removeprefix("@") for tag in ENTRY_MODELS)


def _tag(value: object) -> str:
    if isinstance(value, str | CatalogueEntry):
        return "@id"
    if isinstance(value, HostEntry):
        return "@host"
    if isinstance(value, AddressEntry):
        return "@address"
    if isinstance(value, dict):
        named = [key for key in _KEYS if key in value]
        if len(named) == 1:
            return f"@{named[0]}"
    return "@none"


def _refuse(value: object) -> CatalogueEntry:
    example = "write a catalogue id, host: or address:"
    if not isinstance(value, dict):
        refuse(f"{describe(value)} where a registry belongs", example)
    named = [key for key in _KEYS if key in value]
    if named:
        refuse(f"one entry has {alternatives(named).replace(' or ', ' and ')}", "write a list item for each")
    near = next((near for key in value if (near := closest(str(key), _KEYS))), None)
    refuse("the entry has neither id nor host nor address", f"did you mean {near}?" if near else example)


RegistryEntry = Annotated[
    Annotated[CatalogueEntry, _from_text("id"), Tag("@id")]
    | Annotated[HostEntry, Tag("@host")]
    | Annotated[AddressEntry, Tag("@address")]
    | Annotated[CatalogueEntry, PlainValidator(_refuse), Tag("@none")],
    Discriminator(_tag),
]

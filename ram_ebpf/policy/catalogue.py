"""Known registries by name, with the hosts that each needs: `data/catalogue.yaml`.

Vendors move their blobs between content networks, so each host says which vendor page names it, and from
when its entry is.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from enum import Enum
from functools import cache, cached_property
from importlib import resources
from typing import Annotated

from pydantic import PlainValidator, ValidationInfo, model_validator

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.document import read_document
from ram_ebpf.policy.fields import Boolean, HostField, choice, listed, refuse, text_between, text_like
from ram_ebpf.policy.names import HostPattern, PatternKind

CATALOGUE_PORTS = (443,)
"""All catalogue hosts speak HTTPS."""


class Role(str, Enum):
    """What a client asks of a host."""

    API = "api"  # manifests and tags
    AUTH = "auth"  # tokens
    BLOBS = "blobs"  # layers and configurations, where the API redirects to


def _date(value: object) -> datetime.date:
    if isinstance(value, datetime.date):
        return value
    try:
        return datetime.date.fromisoformat(str(value))
    except ValueError:
        refuse(f"{value!r} is not a date", "write it as 2026-11-23")


class CatalogueHost(PolicyModel):
    """One host of a registry."""

    host: HostField
    role: Annotated[Role, choice(Role)]
    shared: Boolean = False
    """Many tenants answer at its addresses, so the name on the wire must be checked too."""
    optional: Boolean = False
    """Pulls and pushes work without it: it is listed, but the registry's id does not allow it."""
    source: Annotated[str, text_between(1, 200)]
    """The vendor's page; starts with `unconfirmed` when there is none."""
    date: Annotated[datetime.date, PlainValidator(_date)]


class CatalogueRegistry(PolicyModel):
    """One registry."""

    id: Annotated[str, text_like(r"[a-z0-9]+(?:-[a-z0-9]+)*", "a catalogue id", "use a-z, 0-9 and -")]
    title: Annotated[str, text_between(1, 80)]
    note: Annotated[str, text_between(1, 500)]
    hosts: Annotated[tuple[CatalogueHost, ...], listed("[{ host: ghcr.io }]")]

    @property
    def required_hosts(self) -> tuple[CatalogueHost, ...]:
        """The hosts that the registry's id allows."""
        return tuple(host for host in self.hosts if not host.optional)

    @property
    def optional_hosts(self) -> tuple[CatalogueHost, ...]:
        """The hosts that an administrator allows separately, if at all."""
        return tuple(host for host in self.hosts if host.optional)


class Catalogue(PolicyModel):
    """All known registries."""

    registries: Annotated[tuple[CatalogueRegistry, ...], listed("[]")]

    @model_validator(mode="after")
    def _distinct(self) -> Catalogue:
        if len(self.by_id) != len(self.registries):
            refuse("an id is given twice", "use each once")
        for registry in self.registries:
            if len({host.host for host in registry.hosts}) != len(registry.hosts):
                refuse(f"{registry.id} has a host twice", "write each once")
        return self

    @cached_property
    def by_id(self) -> dict[str, CatalogueRegistry]:
        """The registries by id."""
        return {registry.id: registry for registry in self.registries}

    @cached_property
    def _shared(self) -> dict[tuple[str, ...], list[HostPattern]]:
        shared: dict[tuple[str, ...], list[HostPattern]] = {}
        for _, host in self.hosts():
            if host.shared:
                shared.setdefault(host.host.labels[-2:], []).append(host.host)
        return shared

    def is_shared(self, pattern: HostPattern) -> bool:
        """Whether any registry marks this pattern as shared, or one that matches this exact name."""
        # By the last two labels, as this is asked of every rule and few end like a cloud's storage.
        return any(
            pattern == shared
            or (pattern.kind is PatternKind.EXACT and shared.matches_labels(list(pattern.labels)))
            for shared in self._shared.get(pattern.labels[-2:], ())
        )

    def hosts(self) -> Iterator[tuple[CatalogueRegistry, CatalogueHost]]:
        """Every host with its registry, in the order of the file."""
        for registry in self.registries:
            for host in registry.hosts:
                yield registry, host

    def owner_of(self, name: str) -> str | None:
        """The id of the registry whose own, unshared host `name` is; None for any other name."""
        return next((r.id for r, host in self.hosts() if not host.shared and host.host.matches(name)), None)


@cache
def load_catalogue() -> Catalogue:
    """The catalogue that comes with this package."""
    data = resources.files("ram_ebpf.policy").joinpath("data/catalogue.yaml").read_bytes()
    return Catalogue.model_validate(read_document(data, "catalogue.yaml").data)


def catalogue_of(info: ValidationInfo) -> Catalogue:
    """The catalogue that a policy is validated with: that of the context, or else the packaged one."""
    catalogue = (info.context or {}).get("catalogue") or load_catalogue()
    assert isinstance(catalogue, Catalogue)
    return catalogue

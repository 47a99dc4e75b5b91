"""Well-known public resolvers that speak DNS over HTTPS (RFC 8484): `data/encrypted.yaml`.

To the kernel such a query is a connection like any other. Who is allowed to reach one of these gets answers
that nobody here has read, so a policy that allows one is worth a warning. The list cannot be complete: anyone
can run such a resolver, at any address that is allowed.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from functools import cache, cached_property
from importlib import resources
from typing import Annotated

from pydantic import AfterValidator, PlainValidator, model_validator

from ram_ebpf.dns.encrypted_names import EncryptedNames
from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.document import read_document
from ram_ebpf.policy.fields import AddressField, HostField, listed, refuse, text_between, text_like
from ram_ebpf.policy.names import HostPattern, PatternKind


def _date(value: object) -> datetime.date:
    try:
        return datetime.date.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        refuse(f"{value!r} is not a date", "write it as 2026-11-25")


def _exact(pattern: HostPattern) -> HostPattern:
    if pattern.kind is not PatternKind.EXACT:
        refuse(f"{pattern} is a pattern", "write a name; all that is below it belongs to it")
    return pattern


class EncryptedEndpoint(PolicyModel):
    """Names of one service and the addresses that serve nothing else."""

    names: Annotated[tuple[Annotated[HostField, AfterValidator(_exact)], ...], listed("[dns.example]")]
    addresses: Annotated[tuple[AddressField, ...], listed("[192.0.2.53]")] = ()
    source: Annotated[str, text_between(1, 200)]
    """The vendor's page; starts with `unconfirmed` when there is none."""
    date: Annotated[datetime.date, PlainValidator(_date)]


class EncryptedProvider(PolicyModel):
    """Who runs them."""

    id: Annotated[str, text_like(r"[a-z0-9]+(?:-[a-z0-9]+)*", "an id", "use a-z, 0-9 and -")]
    title: Annotated[str, text_between(1, 80)]
    note: Annotated[str | None, text_between(1, 500)] = None
    endpoints: Annotated[tuple[EncryptedEndpoint, ...], listed("[{ names: [dns.example] }]")]


class EncryptedResolvers(PolicyModel):
    """All known providers."""

    providers: Annotated[tuple[EncryptedProvider, ...], listed("[]")]

    @model_validator(mode="after")
    def _distinct(self) -> EncryptedResolvers:
        if len({provider.id for provider in self.providers}) != len(self.providers):
            refuse("an id is given twice", "use each once")
        seen: set[str] = set()
        for endpoint in self.endpoints():
            for item in map(str, (*endpoint.names, *endpoint.addresses)):
                if item in seen:
                    refuse(f"{item} is given twice", "write each once")
                seen.add(item)
        return self

    def endpoints(self) -> Iterator[EncryptedEndpoint]:
        """Every endpoint in the order of the file."""
        for provider in self.providers:
            yield from provider.endpoints

    @cached_property
    def known(self) -> EncryptedNames:
        """All of them together."""
        return EncryptedNames(
            frozenset(str(name) for endpoint in self.endpoints() for name in endpoint.names),
            frozenset(address for endpoint in self.endpoints() for address in endpoint.addresses),
        )


@cache
def load_encrypted_resolvers() -> EncryptedResolvers:
    """The list that comes with this package."""
    data = resources.files("ram_ebpf.dns").joinpath("data/encrypted.yaml").read_bytes()
    return EncryptedResolvers.model_validate(read_document(data, "encrypted.yaml").data)

"""The items of `proxies:`, HTTP proxies by which registries may be reached: by host pattern or by address."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, PlainValidator, Tag

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.fields import HostField, NetworkField, Ports, refuse
from ram_ebpf.policy.words import describe

_EXAMPLE = "write host: or address:, and ports:"


class HostProxy(PolicyModel):
    """A proxy by name. It may have private addresses, as proxies mostly do."""

    host: HostField
    ports: Ports


class AddressProxy(PolicyModel):
    """A proxy by address."""

    address: NetworkField
    ports: Ports


PROXY_MODELS: dict[str, type[PolicyModel]] = {"@proxy host": HostProxy, "@proxy address": AddressProxy}
"""By tag, see SCOPE_MODELS."""


def _tag(value: object) -> str:
    if isinstance(value, HostProxy):
        return "@proxy host"
    if isinstance(value, AddressProxy):
        return "@proxy address"
    named = [key for key in ("host", "address") if isinstance(value, dict) and key in value]
    return f"@proxy {named[0]}" if len(named) == 1 else "@none"


def _refuse(value: object) -> HostProxy:
    if not isinstance(value, dict):
        refuse(f"{describe(value)} where a proxy belongs", _EXAMPLE)
    if "host" in value:
        refuse("one entry has host and address", "write a list item for each")
    refuse("the entry has neither host nor address", _EXAMPLE)


Proxy = Annotated[
    Annotated[HostProxy, Tag("@proxy host")]
    | Annotated[AddressProxy, Tag("@proxy address")]
    | Annotated[HostProxy, PlainValidator(_refuse), Tag("@none")],
    Discriminator(_tag),
]

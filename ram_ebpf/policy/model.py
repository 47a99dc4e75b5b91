"""The policy as an administrator wrote it, validated. See docs/policy.md for the file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, PlainValidator, PrivateAttr, Tag, model_validator

from ram_ebpf.policy.authorization import DockerOptions
from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.choices import MAX_RESOLVERS
from ram_ebpf.policy.choices import Mode as Mode
from ram_ebpf.policy.connections import Connections
from ram_ebpf.policy.control import ControlOptions
from ram_ebpf.policy.denied import DeniedField
from ram_ebpf.policy.export import ExportOptions
from ram_ebpf.policy.fail import DEFAULT_LEASE, MOST, Fail
from ram_ebpf.policy.fields import (
    AddressField,
    Boolean,
    IPAddress,
    Port,
    choice,
    integer_between,
    listed,
    refuse,
    text_between,
)
from ram_ebpf.policy.log import LogOptions
from ram_ebpf.policy.metrics import MetricsField
from ram_ebpf.policy.proxies import Proxy
from ram_ebpf.policy.recognition import Recognition
from ram_ebpf.policy.refusals import Refusals
from ram_ebpf.policy.registry import AddressEntry, AlsoHost, CatalogueEntry, HostEntry, RegistryEntry
from ram_ebpf.policy.scope import Engine, EngineScope, HostScope, Posture, Scope, ScopeModel
from ram_ebpf.policy.source import PolicySource
from ram_ebpf.policy.words import describe

__all__ = [
    "AddressEntry",
    "AlsoHost",
    "CatalogueEntry",
    "DnsOptions",
    "Engine",
    "EngineScope",
    "HostEntry",
    "HostScope",
    "IPAddress",
    "Mode",
    "Policy",
    "Posture",
    "RegistryEntry",
    "Resolver",
    "Scope",
    "ScopeModel",
]


class Resolver(PolicyModel):
    """A DNS resolver whose replies are trusted."""

    address: AddressField
    port: Port = 53


class DnsOptions(PolicyModel):
    """How long a learned address stays allowed, all in seconds; and which names may be asked for."""

    grace_seconds: Annotated[int, integer_between(0, 86400, "a number of seconds for this")] = 30
    """Added after the record's time to live, for clients that keep an address longer than they should."""
    minimum_ttl_seconds: Annotated[int, integer_between(1, 3600, "a number of seconds for this")] = 1
    maximum_ttl_seconds: Annotated[int, integer_between(1, 604800, "a number of seconds for this")] = 86400
    allowed_names_only: Boolean = False
    """Queries for names that no rule allows are refused, so that their names carry nothing out."""

    @model_validator(mode="after")
    def _ordered(self) -> DnsOptions:
        if self.minimum_ttl_seconds > self.maximum_ttl_seconds:
            refuse(
                f"minimum_ttl_seconds {self.minimum_ttl_seconds} is above "
                f"maximum_ttl_seconds {self.maximum_ttl_seconds}",
                "make the minimum the smaller one",
            )
        return self


def _version(value: object) -> Literal[1]:
    if type(value) is not int or value != 1:
        refuse(f"{describe(value)} is not a version of this format", "write version: 1")
    return 1


def _resolvers_tag(value: object) -> str:
    return "@auto" if isinstance(value, str) else "@list"


def _auto(value: object) -> Literal["auto"]:
    if value != "auto":
        refuse(f"{describe(value)} is not a list of resolvers", "write auto, or a list such as [10.0.0.53]")
    return "auto"


_ResolverItem = Annotated[
    Resolver,
    BeforeValidator(lambda value: value if isinstance(value, dict | Resolver) else {"address": value}),
]
Resolvers = Annotated[
    Annotated[Literal["auto"], PlainValidator(_auto), Tag("@auto")]
    | Annotated[tuple[_ResolverItem, ...], listed("[10.0.0.53]", MAX_RESOLVERS), Tag("@list")],
    Discriminator(_resolvers_tag),
]


class Policy(PolicyModel):
    """A whole policy. It is immutable; `origin_of` and `origin_of_denied` say where in its file things
    stand."""

    version: Annotated[Literal[1], PlainValidator(_version)]
    organization: Annotated[str | None, text_between(1, 100)] = None
    mode: Annotated[Mode, choice(Mode)] = Mode.ENFORCE
    message: Annotated[str | None, text_between(1, 200)] = None
    registries: Annotated[tuple[RegistryEntry, ...], listed("[docker-hub]")]
    denied: Annotated[tuple[DeniedField, ...], listed("[public.corp.example]")] = ()
    """Exceptions from what `registries` allows."""
    proxies: Annotated[tuple[Proxy, ...], listed("[{ host: proxy.corp.example, ports: [3128] }]")] = ()
    """By which what is allowed may be reached as well."""
    resolvers: Resolvers = "auto"
    dns: DnsOptions = DnsOptions()
    connections: Connections = Connections()
    recognition: Recognition = Recognition()
    docker: DockerOptions = DockerOptions()
    refusals: Refusals = Refusals()
    control: ControlOptions = ControlOptions()
    fail: Annotated[Fail, choice(Fail)] = Fail.CLOSED
    """What it means that the daemon is gone for longer than `lease_seconds`."""
    lease_seconds: Annotated[int | None, integer_between(10, MOST, "a number of seconds for this")] = None
    metrics: MetricsField = None
    """Where they are served; None: nowhere."""
    log: LogOptions = LogOptions()
    export: ExportOptions = ExportOptions()
    scopes: Annotated[tuple[Scope, ...], listed("[{ engine: docker }]")] = (EngineScope(engine=Engine.ALL),)

    _source: PolicySource = PrivateAttr(default=PolicySource())

    @model_validator(mode="after")
    def _proxies_are_read(self) -> Policy:
        if self.proxies and not self.connections.read_names:
            refuse(
                "there are proxies, and connections.read_names is false",
                "remove one of them: whom a proxy is asked for is in what the connection begins with",
            )
        return self

    @model_validator(mode="after")
    def _lease_means_something(self) -> Policy:
        if self.lease_seconds is not None and self.fail is Fail.CLOSED:
            refuse(
                "lease_seconds is for fail: open, and without that enforcement stays for ever",
                "remove it, or write fail: open",
            )
        return self

    @property
    def lease(self) -> int | None:
        """Seconds without a daemon after which nothing is refused any more; None: for ever."""
        return (self.lease_seconds or DEFAULT_LEASE) if self.fail is Fail.OPEN else None

    @property
    def source(self) -> PolicySource:
        """Where in which file its parts stand."""
        return self._source

    @property
    def file(self) -> str:
        """The name of the file that this was read from, or empty."""
        return self._source.file

    def read_from(self, source: PolicySource) -> Policy:
        """This policy, once told where it was read from. For the loader."""
        self._source = source
        return self

    def at_scope(self, registries: tuple[RegistryEntry, ...], scope: int | None) -> Policy:
        """This policy with what it allows in one scope alone. `scope`: its place in `scopes`, if any."""
        if not registries:
            return self
        joined = self.model_copy(update={"registries": self.registries + registries})
        inside = ".host" if scope is not None and isinstance(self.scopes[scope], HostScope) else ""
        return joined.read_from(self._source.at_scope(len(self.registries), scope, inside))

    def line_of(self, entry: int, also: int | None = None) -> int:
        """See PolicySource."""
        return self._source.line_of(entry, also)

    def origin_of(self, entry: int, also: int | None = None) -> str:
        """See PolicySource."""
        return self._source.origin_of(entry, also)

    def origin_of_denied(self, index: int) -> str:
        """See PolicySource."""
        return self._source.origin_of_denied(index)

    def origin_of_proxy(self, index: int) -> str:
        """See PolicySource."""
        return self._source.origin_of_proxy(index)

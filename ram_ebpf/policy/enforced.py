"""What is left of a policy once its rules are made: what whoever enforces them has to know.

Plain data, which goes from the process that reads policies to the daemon. The names are those of model.py, so
that either can stand for the other. Named tuples, as a dozen data classes would take a fiftieth of a start.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeAlias

from ram_ebpf.policy.choices import Earlier, IPAddress, Mode, OnRemoval, Posture, Switch, Unknown
from ram_ebpf.policy.fail import Fail
from ram_ebpf.policy.source import PolicySource

if TYPE_CHECKING:
    from ram_ebpf.policy.export import ExportOptions, OtlpExport, SyslogExport
    from ram_ebpf.policy.log import LogOptions
    from ram_ebpf.policy.metrics import Metrics
    from ram_ebpf.policy.model import Policy
    from ram_ebpf.policy.scope import Scope

PolicyLike: TypeAlias = "Policy | EnforcedPolicy"
LogLike: TypeAlias = "LogOptions | EnforcedLog"
MetricsLike: TypeAlias = "Metrics | EnforcedMetrics"
SyslogLike: TypeAlias = "SyslogExport | EnforcedSyslog"
OtlpLike: TypeAlias = "OtlpExport | EnforcedOtlp"
ExportLike: TypeAlias = "ExportOptions | EnforcedExport"
ScopeLike: TypeAlias = "Scope | EnforcedScope"


class EnforcedResolver(NamedTuple):
    """As Resolver."""

    address: IPAddress
    port: int


class EnforcedDns(NamedTuple):
    """As DnsOptions."""

    grace_seconds: int
    minimum_ttl_seconds: int
    maximum_ttl_seconds: int
    allowed_names_only: bool


class EnforcedConnections(NamedTuple):
    """As Connections."""

    read_names: bool
    earlier: Earlier
    on_removal: OnRemoval


class EnforcedRecognition(NamedTuple):
    """As Recognition."""

    unknown: Unknown
    registry_ports: tuple[int, ...]
    unknown_ports: tuple[int, ...]


class EnforcedDocker(NamedTuple):
    """As DockerOptions."""

    authorization: bool


class EnforcedRefusals(NamedTuple):
    """As Refusals."""

    responder: Switch


class EnforcedControl(NamedTuple):
    """As ControlOptions."""

    group: str | None


class EnforcedLog(NamedTuple):
    """As LogOptions."""

    limit: Switch
    lines_per_minute: int
    burst: int
    report_seconds: int


class EnforcedMetrics(NamedTuple):
    """As Metrics."""

    address: IPAddress
    port: int | None
    socket: str | None
    group: str | None
    socket_mode: int


@dataclass(frozen=True)
class EnforcedSyslog:
    """As SyslogExport. `label`: what that is in a line of the log."""

    unix: str | None
    udp: str | None
    tcp: str | None
    endpoint: tuple[str, int]
    label: str
    protocol: ClassVar[str] = "syslog"

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class EnforcedOtlp:
    """As OtlpExport."""

    endpoint: str
    label: str
    protocol: ClassVar[str] = "otlp"

    def __str__(self) -> str:
        return self.label


class EnforcedExport(NamedTuple):
    """As ExportOptions."""

    all: tuple[EnforcedSyslog | EnforcedOtlp, ...]

    @classmethod
    def of(cls, options: ExportOptions) -> EnforcedExport:
        """What is said of where lines are sent to."""
        found: list[EnforcedSyslog | EnforcedOtlp] = []
        if (one := options.syslog) is not None:
            endpoint = ("", 0) if one.unix is not None else one.endpoint
            found.append(EnforcedSyslog(one.unix, one.udp, one.tcp, endpoint, str(one)))
        if (other := options.otlp) is not None:
            found.append(EnforcedOtlp(other.endpoint, str(other)))
        return cls(tuple(found))


class EnforcedScope(NamedTuple):
    """As any scope. `registries`: a mark of each, see mark_of(); `runs`: as of an engine's."""

    kind: str
    target: str
    posture: Posture
    registries: tuple[Hashable, ...] = ()
    runs: Posture | None = None

    @classmethod
    def of(cls, scope: Scope) -> EnforcedScope:
        """Of a scope of a policy or a command line."""
        registries = tuple(map(mark_of, scope.registries))
        return cls(scope.kind, scope.target, scope.posture, registries, getattr(scope, "runs", None))


@dataclass(frozen=True)
class EnforcedPolicy:
    """As Policy, without its registries."""

    version: int
    organization: str | None
    mode: Mode
    message: str | None
    resolvers: Literal["auto"] | tuple[EnforcedResolver, ...]
    dns: EnforcedDns
    connections: EnforcedConnections
    recognition: EnforcedRecognition
    docker: EnforcedDocker
    refusals: EnforcedRefusals
    control: EnforcedControl
    fail: Fail
    lease: int | None
    metrics: EnforcedMetrics | None
    log: EnforcedLog
    export: EnforcedExport
    scopes: tuple[EnforcedScope, ...]
    source: PolicySource = field(default_factory=PolicySource)
    """The file's name and digest, and no lines."""

    @property
    def file(self) -> str:
        """The name of the file that this was read from, or empty."""
        return self.source.file

    @classmethod
    def of(cls, policy: Policy) -> EnforcedPolicy:
        """Of a whole policy."""
        dns, connections, recognition = policy.dns, policy.connections, policy.recognition
        log, metrics = policy.log, policy.metrics
        return cls(
            policy.version,
            policy.organization,
            policy.mode,
            policy.message,
            "auto"
            if isinstance(policy.resolvers, str)
            else tuple(EnforcedResolver(item.address, item.port) for item in policy.resolvers),
            EnforcedDns(
                dns.grace_seconds,
                dns.minimum_ttl_seconds,
                dns.maximum_ttl_seconds,
                dns.allowed_names_only,
            ),
            EnforcedConnections(connections.read_names, connections.earlier, connections.on_removal),
            EnforcedRecognition(recognition.unknown, recognition.registry_ports, recognition.unknown_ports),
            EnforcedDocker(policy.docker.authorization),
            EnforcedRefusals(policy.refusals.responder),
            EnforcedControl(policy.control.group),
            policy.fail,
            policy.lease,
            None
            if metrics is None
            else EnforcedMetrics(
                metrics.address, metrics.port, metrics.socket, metrics.group, metrics.socket_mode
            ),
            EnforcedLog(log.limit, log.lines_per_minute, log.burst, log.report_seconds),
            EnforcedExport.of(policy.export),
            tuple(map(EnforcedScope.of, policy.scopes)),
            PolicySource(policy.source.file, policy.source.digest),
        )


def mark_of(registry: object) -> bytes:
    """By which equal entries of `registries:` are known, without what is in them."""
    return hashlib.blake2b(repr(registry).encode(), digest_size=16).digest()

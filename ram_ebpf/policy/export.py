"""Where lines of the log are sent to, beside the log."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import PlainValidator, model_validator

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.fields import Port, parse_address, refuse, text_like
from ram_ebpf.policy.names import HostPattern, PatternError, PatternKind
from ram_ebpf.policy.words import describe, show

_UNIX = "write one, such as unix: /dev/log"
_UDP, _TCP = 514, 601  # RFC 5426 3.3, RFC 3195 9.1


def _receiver(value: object) -> str:
    if (address := parse_address(value)) is not None:
        return str(address)
    cure = "write a host name or an address, and port: beside it"
    if not isinstance(value, str):
        refuse(f"{describe(value)} where a receiver belongs", cure)
    try:
        pattern = HostPattern.parse(value)
    except PatternError:
        refuse(f"{show(value)} is no host name and no address", cure)
    if pattern.kind is not PatternKind.EXACT:
        refuse(f"{show(value)} has a wildcard", cure)
    return pattern.text


class SyslogExport(PolicyModel):
    """RFC 5424: to a Unix socket, by UDP or by TCP, one of them."""

    unix: Annotated[str | None, text_like(r"/[^\0]{1,100}", "an absolute path", _UNIX)] = None
    udp: Annotated[str | None, PlainValidator(_receiver)] = None
    tcp: Annotated[str | None, PlainValidator(_receiver)] = None
    port: Port | None = None
    protocol: ClassVar[str] = "syslog"

    @model_validator(mode="after")
    def _one_of_them(self) -> SyslogExport:
        if sum(kind is not None for kind in (self.unix, self.udp, self.tcp)) != 1:
            refuse("it is not said by what", "write one of unix: /dev/log, udp: HOST and tcp: HOST")
        if self.unix is not None and self.port is not None:
            refuse("a Unix socket has no port", "remove port")
        return self

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port of the receiver by UDP or TCP."""
        if self.udp is not None:
            return self.udp, self.port or _UDP
        assert self.tcp is not None
        return self.tcp, self.port or _TCP

    def __str__(self) -> str:
        if self.unix is not None:
            return f"syslog at {self.unix}"
        host, port = self.endpoint
        return f"syslog at {host} port {port} ({'udp' if self.udp is not None else 'tcp'})"


class OtlpExport(PolicyModel):
    """OpenTelemetry's protocol, logs over HTTP."""

    endpoint: Annotated[
        str,
        text_like(
            r"https?://[^\s/?#@]+(/[!-~]*)?", "a URL", "write one, such as http://10.0.0.9:4318/v1/logs"
        ),
    ]

    protocol: ClassVar[str] = "otlp"

    def __str__(self) -> str:
        return f"otlp at {self.endpoint}"


class ExportOptions(PolicyModel):
    """Nowhere, unless something is said."""

    syslog: SyslogExport | None = None
    otlp: OtlpExport | None = None

    @property
    def all(self) -> tuple[SyslogExport | OtlpExport, ...]:
        """Those that there are."""
        return tuple(item for item in (self.syslog, self.otlp) if item is not None)

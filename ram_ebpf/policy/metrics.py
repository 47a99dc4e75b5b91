"""Where a running daemon serves its metrics, if anywhere: to this host alone."""

from __future__ import annotations

import ipaddress
from enum import Enum
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, model_validator

from ram_ebpf.policy.base import PolicyModel
from ram_ebpf.policy.fields import AddressField, IPAddress, Port, choice, refuse, text_like

LONGEST_PATH = 80
"""Bytes. A Unix socket's has 107 (unix(7)), and it is made under a longer name first."""
_EXAMPLE = "write port: 9469, or socket: /run/ram-ebpf-metrics.sock"


class SocketMode(str, Enum):
    """Who may read at a Unix socket; whoever connects needs to write to it."""

    ROOT = "0600"
    GROUP = "0660"
    ALL = "0666"


def _is_loopback(address: IPAddress) -> IPAddress:
    if not address.is_loopback:
        refuse(
            f"{address} is not this host's own loopback address, so others could read there",
            "write 127.0.0.1 or ::1, and let a proxy that asks who it is serve others",
        )
    return address


def _something(value: object) -> object:
    """None is only a default: in a file, a key without a value is a mistake."""
    if value is None:
        refuse("there is nothing behind the key", "write a value, or remove the key")
    return value


_GIVEN = BeforeValidator(_something)


class Metrics(PolicyModel):
    """A loopback address and a port, or a Unix socket."""

    address: Annotated[AddressField, AfterValidator(_is_loopback)] = ipaddress.IPv4Address("127.0.0.1")
    port: Annotated[Port | None, _GIVEN] = None
    socket: Annotated[
        Annotated[
            str,
            text_like(
                rf"(?!.*/\.{{1,2}}(?:/|$))(?=.{{2,{LONGEST_PATH}}}$)(?:/[!-.0-~]+)+",
                f"an absolute path of at most {LONGEST_PATH} characters",
                "write one, such as /run/ram-ebpf-metrics.sock",
            ),
        ]
        | None,
        _GIVEN,
    ] = None
    mode: Annotated[Annotated[SocketMode, choice(SocketMode)] | None, _GIVEN] = None
    """None: for root, and for the group if there is one."""
    group: Annotated[
        Annotated[
            str,
            text_like(
                r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "the name of a group", "write one, such as prometheus"
            ),
        ]
        | None,
        _GIVEN,
    ] = None

    @model_validator(mode="after")
    def _one_place(self) -> Metrics:
        given = self.model_fields_set
        if self.socket is None:
            if self.port is None:
                refuse("it is not said where metrics are served", _EXAMPLE)
            if given & {"mode", "group"}:
                refuse(
                    "mode and group are those of a Unix socket",
                    "remove them, or write socket: instead of port:",
                )
        elif given & {"address", "port"}:
            refuse("metrics are served at a port or at a Unix socket, not at both", "remove one of them")
        elif self.group is not None and self.mode is SocketMode.ROOT:
            refuse("mode 0600 leaves the group out", "write mode: 0660, or remove group:")
        return self

    @property
    def socket_mode(self) -> int:
        """In numbers."""
        mode = self.mode or (SocketMode.ROOT if self.group is None else SocketMode.GROUP)
        return int(mode.value, 8)


MetricsField = Annotated[Metrics | None, _GIVEN]

"""What the programs are told beside the rules."""

from __future__ import annotations

from dataclasses import dataclass

from ram_ebpf.dataplane import abi

_LOOPBACK_IFINDEX = 1  # in every network namespace: net/core/net_namespace.c, loopback_net_init


@dataclass(frozen=True)
class Settings:
    """All times in seconds.

    `hold`: how long replies over TCP wait for user space; 0: not at all. `loopback`: the number of the
    loopback interface, 0 where there is no other one to tell it from (test runs). `unknown` and the ports, at
    most abi.SOME_PORTS_MAX each, matter in posture registries only. `read_names`: whether the name that a
    connection begins with must be allowed. `cut_earlier`: those that were there before are cut, as theirs is
    not known. `keep_removed`: connections stay that were allowed by a rule which is no more. `lease`: how
    long user space may be gone before nothing is refused any more; 0: for ever.
    """

    mode: abi.Mode = abi.Mode.ENFORCE
    grace: int = 30
    minimum_ttl: int = 1
    maximum_ttl: int = 86400
    query_lifetime: int = 30
    hold: float = 3.0
    allowed_names_only: bool = False
    loopback: int = _LOOPBACK_IFINDEX
    unknown: abi.Unknown = abi.Unknown.ALLOW
    registry_ports: tuple[int, ...] = ()
    asked_ports: tuple[int, ...] = ()
    read_names: bool = True
    cut_earlier: bool = False
    keep_removed: bool = False
    lease: int = 0

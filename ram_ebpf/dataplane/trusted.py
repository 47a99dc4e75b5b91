"""Whom the programs believe: resolvers, and sockets and control groups of those that live on this host."""

from __future__ import annotations

import errno
import ipaddress
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.maps import Map

DNS_PORT = 53
# dockerd answers at this address in each container's own network namespace, with sockets that are not in ours
# and on a port to which NAT leads what is sent to port 53 (moby: libnetwork/resolver.go).
DOCKER_RESOLVER = ipaddress.ip_address("127.0.0.11")
_TRUE = struct.pack("=I", 1)


class TrustedResolver(NamedTuple):
    """A resolver whose replies are learned. `local`: it lives on this host, behind the loopback interface."""

    address: abi.IPAddress
    port: int = DNS_PORT
    local: bool = False

    @property
    def flags(self) -> abi.ResolverFlag:
        """As the programs know it."""
        flags = abi.ResolverFlag.LOCAL if self.local else abi.ResolverFlag(0)
        if self.local and self.address == DOCKER_RESOLVER:
            flags |= abi.ResolverFlag.TRANSLATED
        return flags


def trust_resolvers(current: Map, resolvers: Iterable[TrustedResolver]) -> None:
    """Makes these those of the map `resolvers`. Raises OSError, E2BIG where there is no room for all."""
    _replace(current, {abi.endpoint(r.address, r.port): struct.pack("=I", r.flags) for r in resolvers})


def trust_numbers(current: Map, numbers: Iterable[int]) -> None:
    """Makes these those of a map: cookies of sockets, or ids of control groups.

    Raises OSError, E2BIG where there is no room for all of them: some are trusted then.
    """
    _replace(current, {struct.pack("=Q", number): _TRUE for number in numbers})


def know_addresses(current: Map, addresses: Iterable[abi.IPAddress]) -> None:
    """Adds these to a map. Raises OSError."""
    current.update((abi.pack_address(address), _TRUE) for address in addresses)


def _replace(current: Map, wanted: Mapping[bytes, bytes]) -> None:
    """New ones are added before old ones go."""
    is_full = False
    try:
        current.update(wanted.items())
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        is_full = True  # with old ones, which make room now
    for key in list(current):
        if key not in wanted:
            current.discard(key)
    if is_full:
        current.update(wanted.items())

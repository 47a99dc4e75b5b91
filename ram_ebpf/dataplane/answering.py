"""Where refused connections are led to, and what they were for: the maps behind bpf/lib/responder.h."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import NamedTuple

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.maps import Map

_FIRST = struct.pack("=I", 0)


class Destination(NamedTuple):
    """Where the responder listens. `priority`: SO_PRIORITY of its sockets, by which the kernel knows them.

    `ports`: those of refused connections on which it has something to say.
    """

    ipv4: abi.IPAddress
    ipv6: abi.IPAddress
    port: int
    priority: int
    ports: frozenset[int]


class Refused(NamedTuple):
    """What a connection was for that was led to the responder. `scope` is a number."""

    address: abi.IPAddress
    port: int
    scope: int
    reason: abi.Reason


class Answering:
    """The maps of all views."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._responder = maps["responder"]
        self._ports = maps["responder_ports"]
        self._led = maps["led"]

    def lead_to(self, there: Destination) -> None:
        """Leads refused connections there from now on. Raises OSError.

        Where there are more ports than room for them, the highest are left out: a refusal is EPERM there.
        """
        self.stop()
        ports = set(sorted(there.ports)[: self._ports.shape.max_entries])
        for key in list(self._ports):
            if struct.unpack("=I", key)[0] not in ports:
                self._ports.discard(key)
        self._ports.update((struct.pack("=I", port), struct.pack("=I", 1)) for port in ports)
        self._responder[_FIRST] = bytes(
            abi.Responder(_words(there.ipv4), _words(there.ipv6), there.priority, there.port, 0)
        )

    def stop(self) -> None:
        """From now on a refusal is EPERM."""
        self._responder[_FIRST] = bytes(abi.Responder())

    def take(self, client: abi.IPAddress, port: int) -> Refused | None:
        """What the connection from this end was for, once; None when the kernel has not led it there."""
        key = abi.endpoint(client, port)
        raw = self._led.get(key)
        if raw is None:
            return None
        self._led.discard(key)
        found = abi.Led.from_buffer_copy(raw)
        address = abi.unpack_address(bytes(found.address))
        return Refused(address, found.port, found.scope, abi.Reason(found.reason))


def _words(address: abi.IPAddress) -> ctypes.Array[ctypes.c_uint32]:
    return (ctypes.c_uint32 * 4).from_buffer_copy(abi.pack_address(address))

"""ram-ebpf where the lab's cables come together: as on a host, with the members as its containers.

Each member has its end of a cable in a namespace of its own; the other ends are devices at the switch.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType

from pyroute2 import IPRoute

from ram_ebpf.dataplane import devices, namespaces
from ram_ebpf.dataplane.devices import Attachment, Device
from tests.adversarial.field import ScopedDaemon

from . import topology
from .daemon import COMMAND
from .lab import Lab
from .namespaces import Namespace

ADDRESS = "10.77.0.3"  # the switch's own
_BRIDGE = "bridge"

POLICY = f"""\
version: 1
message: "Ask platform@acme.example."
registries:
  - host: "**.allowed.registry.test"
    private: true
  - host: allowed.registry.test
    private: true
resolvers: [{Lab.resolver}, "{Lab.resolver_v6}"]
"""


def of(lab: Lab) -> Namespace:
    """The namespace of the switch."""
    return Namespace(lab.client.namespace.name.removesuffix(lab.client.name) + "switch")


@contextlib.contextmanager
def addressed(lab: Lab) -> Iterator[None]:
    """The switch has an address, by which ram-ebpf can ask the lab's resolver itself."""
    with IPRoute(netns=of(lab).name) as netlink:
        (bridge,) = netlink.link_lookup(ifname=_BRIDGE)
        wanted = {"index": bridge, "address": ADDRESS, "prefixlen": topology.PREFIX_V4}
        alone = not netlink.get_addr(index=bridge, address=ADDRESS)
        if alone:
            netlink.addr("add", **wanted)
        try:
            yield
        finally:
            if alone:
                netlink.addr("del", **wanted)


class SwitchDaemon(ScopedDaemon):
    """ram-ebpf in the switch's network namespace, on scopes given as on the command line."""

    def __init__(self, lab: Lab, policy: str, scopes: Sequence[str], options: Sequence[str] = ()) -> None:
        command = ["nsenter", f"--net={of(lab).path}", "--", *COMMAND]
        super().__init__(lab, policy, options, [], command)
        self._argv += [word for scope in scopes for word in ("--scope", scope)]
        self._address = addressed(lab)

    def __enter__(self) -> SwitchDaemon:
        super().__enter__()
        return self

    def start(self) -> None:
        """See Daemon."""
        self._address.__enter__()
        try:
            super().start()
        except BaseException:
            self._address.__exit__(None, None, None)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        self._address.__exit__(None, None, None)


@contextlib.contextmanager
def governed(lab: Lab, policy: str, *scopes: str, options: Sequence[str] = ()) -> Iterator[SwitchDaemon]:
    """ram-ebpf at the switch; it is asked to end."""
    with SwitchDaemon(lab, policy, scopes, options) as daemon:
        try:
            yield daemon
        finally:
            status = daemon.terminate()
        assert status == 0, daemon.said()


def end_of_cable(lab: Lab) -> Device:
    """The switch's end of the client's cable."""
    with namespaces.inside(of(lab).path):
        return Device("client", socket.if_nametoindex("client"), namespace=of(lab).path)


def programs_on(lab: Lab) -> list[Attachment]:
    """What is attached to it."""
    return devices.ours_attached(end_of_cable(lab))

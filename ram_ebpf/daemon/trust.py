"""Whom to believe, as it changes: the host's resolvers, and the sockets of those that live on this host."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable

from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.trusted import DOCKER_RESOLVER
from ram_ebpf.dns.addresses import HostAddresses
from ram_ebpf.dns.local import LocalFinder
from ram_ebpf.dns.resolvers import resolvers_of
from ram_ebpf.policy.enforced import PolicyLike
from ram_ebpf.scopes.cgroup import identifier

_log = logging.getLogger(__name__)

_PERIOD = 2.0  # seconds between looks
_SHORTEST_PERIOD = 0.05  # when somebody asks for one


class Trust:
    """Keeps the data plane's idea of its resolvers right. `say(event, explanation)` tells of changes."""

    def __init__(self, policy: PolicyLike, say: Callable[[str, str], None]) -> None:
        self._policy = policy
        self._say = say
        self._finder = LocalFinder()
        self._addresses = HostAddresses()
        self._due = 0.0
        self._last = float("-inf")
        self._cookies: set[int] = set()
        self._cgroups: set[int] = set()
        self._unwatched: set[str] = set()
        self._is_full = False  # the map of sockets
        self.resolvers = resolvers_of(policy, self._addresses.now())

    def apply(self, plane: Plane) -> None:
        """Looks now: at first, and when something else is governed than before."""
        self._last = time.monotonic()
        self._due = self._last + _PERIOD
        plane.trust(self.resolvers)
        self._follow_sockets(plane)

    def use(self, policy: PolicyLike, plane: Plane) -> None:
        """Another policy may name other resolvers."""
        self._policy = policy
        with contextlib.suppress(OSError):  # of this host's addresses; it is looked again soon
            self.resolvers = resolvers_of(policy, self._addresses.now())
        self.apply(plane)

    @property
    def unbelieved(self) -> int:
        """How many trusted resolvers on this host have no process that could be believed."""
        return sum(f"{its.address}#{its.port}" in self._unwatched for its in self.resolvers if its.local)

    def hurry(self) -> None:
        """A reply came that should have been a resolver's, and was not recognised: it may have restarted."""
        self._due = min(self._due, self._last + _SHORTEST_PERIOD)

    def next_look(self) -> float:
        """When follow() has something to do, on the monotonic clock."""
        return self._due

    def follow(self, plane: Plane) -> None:
        """Looks again when it is time. resolv.conf changes when a laptop moves, and resolvers restart."""
        if time.monotonic() < self._due:
            return
        try:
            found = resolvers_of(self._policy, self._addresses.now())
        except OSError as error:  # of this host's addresses; those that were trusted stay so
            self._warn("resolvers", f"this host's resolvers cannot be looked at: {error}")
            found = self.resolvers
        if found != self.resolvers:
            self.resolvers = found
            plane.trust(found)
            names = ", ".join(str(resolver.address) for resolver in found)
            self._say("resolvers", f"the trusted resolvers are now {names}")
        self._follow_sockets(plane)
        self._last = time.monotonic()
        self._due = self._last + _PERIOD

    def _follow_sockets(self, plane: Plane) -> None:
        try:
            found = self._finder.find(self.resolvers, plane.attached)
        except OSError as error:
            self._warn("sockets", f"the sockets of this host's resolvers cannot be found: {error}")
            return
        cookies = {cookie for item in found for cookie in item.cookies}
        if cookies != self._cookies:
            self._trust_sockets(plane, cookies)
        cgroups = set()
        for item in found:
            if item.address == DOCKER_RESOLVER:
                for cgroup in item.cgroups:
                    with contextlib.suppress(OSError):  # it is gone already
                        cgroups.add(identifier(cgroup))
        if cgroups != self._cgroups:
            try:
                plane.trust_cgroups(cgroups)
                self._cgroups = cgroups
            except OSError as error:
                self._warn("cgroups", f"not all {len(cgroups)} Docker daemons can be believed: {error}")
        try:
            plane.watch({cgroup for item in found for cgroup in item.cgroups})
        except OSError as error:
            self._warn("watch", f"a resolver's cgroup cannot be watched: {error}")
        for item in found:
            if not item.cgroups:
                self._warn(
                    f"{item.address}#{item.port}",
                    f"the resolver {item.address} is on this host, but it is not served by a process that "
                    "could be believed (one of root or of a system user, outside the governed scopes): what "
                    "it replies is asked again, one by one; run ram-ebpf where it sees that process, or name "
                    "the resolvers behind it in the policy",
                )
            else:
                self._unwatched.discard(f"{item.address}#{item.port}")

    def _trust_sockets(self, plane: Plane, cookies: set[int]) -> None:
        """Where not all find room, it is tried again with each look: others may have gone."""
        try:
            plane.trust_sockets(cookies)
        except OSError as error:
            room = plane.maps["resolver_sockets"].shape.max_entries
            why = f"there is room for {room}" if error.errno == errno.E2BIG else str(error)
            if not self._is_full:
                self._say(
                    "resolver-sockets-full",
                    f"the resolvers on this host have {len(cookies)} sockets, and {why}: what comes from the "
                    "others is asked again, one by one; have them use fewer sockets, or name the resolvers "
                    "behind them in the policy",
                )
            self._is_full = True
            return
        self._cookies = cookies
        if self._is_full:
            self._is_full = False
            self._say("resolver-sockets-known", "all sockets of this host's resolvers are believed again")

    def _warn(self, about: str, text: str) -> None:
        if about not in self._unwatched:
            self._unwatched.add(about)
            self._say("resolver-unwatched", text)

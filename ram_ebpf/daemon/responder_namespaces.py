"""Other network namespaces in which what is governed lives, as containers do; each has its listeners."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from pathlib import Path

from ram_ebpf.dataplane.namespaces import OWN, identity, inside
from ram_ebpf.policy.words import plural
from ram_ebpf.responder import channel, listening
from ram_ebpf.scopes.neighbours import Identity, Neighbours

_MOST = 512
_HERE = Path("/proc/thread-self/ns/net")
_GONE = (FileNotFoundError, ProcessLookupError)


class Namespaces:
    """Keeps the process informed of them. Where it cannot listen, refusals are EPERM."""

    def __init__(self, end: socket.socket, first: listening.Listening) -> None:
        """`end`: the daemon's, of the channel to the process; `first`: where that listens already."""
        self._end = end
        self._port, self._priority = first.port, first.priority
        self._neighbours = Neighbours(identity(OWN))
        self._known: dict[Identity, int] = {}
        self._failed: set[Identity] = set()
        self._last = 0
        self.why: str | None = None
        """Of the last one in which it cannot listen, if any of these is still there."""

    def __len__(self) -> int:
        """In how many it listens."""
        return len(self._known)

    @property
    def without(self) -> int:
        """In how many it cannot listen."""
        return len(self._failed)

    def follow(self, cgroups: Iterable[Path]) -> str | None:
        """Looks who has come and gone; how many new ones there are in which it cannot listen, and why.

        Raises OSError where the process does not hear.
        """
        wanted = self._neighbours.look(cgroups)
        for gone in self._known.keys() - wanted.keys():
            self._end.send(channel.Change(self._known.pop(gone)).pack())
        self._failed &= wanted.keys()
        if not self._failed:
            self.why = None
        before = set(self._failed)
        for which, path in wanted.items():
            if which not in self._known and which not in self._failed:
                self._look_into(which, path)
        new = len(self._failed - before)
        if not new:
            return None
        return f"{plural(new, 'network namespace')} of what is governed: {self.why}"

    def _look_into(self, which: Identity, path: Path) -> None:
        if len(self._known) >= _MOST:
            self._failed.add(which)
            self.why = f"it listens in {_MOST} already"
            return
        try:
            with inside(path):
                if identity(_HERE) != which:  # the process has gone, and another has its number
                    return
                made = listening.listen_too(self._port, self._priority)
        except _GONE:  # the next look may find another process in there
            return
        except OSError as error:
            self._failed.add(which)
            self.why = str(error)
            return
        self._last += 1
        with contextlib.closing(made):
            numbers = [item.fileno() for item in made.sockets]
            socket.send_fds(self._end, [channel.Change(self._last).pack()], numbers)
        self._known[which] = self._last

"""Which name an address was last given for, so that a refusal can say a name and not only a number; and which
names were looked up shortly before it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dns.response import Answer

_MOST = 16384
_RECENT = 256  # lookups
_SHORTLY = 10.0  # seconds


class NameHistory:
    """The last name of each address; of more than 16 384 the longest unused go."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._names: OrderedDict[IPAddress, str] = OrderedDict()
        self._recent: deque[tuple[float, str]] = deque(maxlen=_RECENT)

    def note(self, answer: Answer, own: bool = False) -> None:
        """Remembers what a resolver answered. `own`: the daemon has asked, and nobody in a scope."""
        with self._lock:  # both the reader of events and the seeder come here
            if not own:
                self._recent.append((time.monotonic(), answer.name))
            for address, _ in answer.addresses:
                self._names[address] = answer.name
                self._names.move_to_end(address)
            while len(self._names) > self._most:
                self._names.popitem(last=False)

    def name_of(self, address: IPAddress) -> str | None:
        """The name that the address was last given for; None when no reply held it."""
        return self._names.get(address)

    def before(self, name: str) -> list[tuple[float, str]]:
        """Other names that were looked up in the ten seconds before this one was last, the latest one first.

        Each with the seconds in between.
        """
        with self._lock:
            recent = list(reversed(self._recent))
        for index, (when, found) in enumerate(recent):
            if found == name:
                others = recent[index + 1 :]
                return [(when - at, other) for at, other in others if when - at <= _SHORTLY and other != name]
        return []

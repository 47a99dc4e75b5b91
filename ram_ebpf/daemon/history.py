"""Which name an address was last given for, so that a refusal can say a name and not only a number."""

from __future__ import annotations

import threading
from collections import OrderedDict

from ram_ebpf.dataplane.abi import IPAddress
from ram_ebpf.dns.lookup import Answer

_MOST = 65536


class NameHistory:
    """The last name of each address; of more than 65 536 the longest unused go."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._names: OrderedDict[IPAddress, str] = OrderedDict()

    def note(self, answer: Answer) -> None:
        """Remembers what a resolver answered."""
        with self._lock:  # both the reader of events and the seeder come here
            for address, _ in answer.addresses:
                self._names[address] = answer.name
                self._names.move_to_end(address)
            while len(self._names) > self._most:
                self._names.popitem(last=False)

    def name_of(self, address: IPAddress) -> str | None:
        """The name that the address was last given for; None when no reply held it."""
        return self._names.get(address)

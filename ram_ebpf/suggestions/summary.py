"""All that was refused lately, in little room: whoever makes up names costs only the same scope others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ram_ebpf.suggestions.refused import Key, Refused

MOST = 2000
DAYS = 30
"""What was not refused for so long is forgotten."""


@dataclass
class Forgotten:
    """What there was no room for."""

    count: int = 0
    last: int = 0
    """Seconds since 1970."""
    scope: str = ""
    """Where too much was refused, the last time."""


class Summary:
    """At most `most` of them. Of the scope that has most, the one that was refused longest ago goes first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._scopes: dict[str, OrderedDict[Key, Refused]] = {}
        self._count = 0
        self.forgotten = Forgotten()

    def __iter__(self) -> Iterator[Refused]:
        for entries in self._scopes.values():
            yield from entries.values()

    def __len__(self) -> int:
        return self._count

    def note(self, refused: Refused) -> None:
        """One more, which is the latest one."""
        entries = self._scopes.setdefault(refused.scope, OrderedDict())
        known = entries.get(refused.key)
        if known is not None:
            known.join(refused)
            entries.move_to_end(refused.key)
            return
        entries[refused.key] = refused
        self._count += 1
        if self._count > self._most:
            self._forget_one(refused.last)

    def _forget_one(self, now: int) -> None:
        scope = max(self._scopes, key=lambda scope: len(self._scopes[scope]))
        self._scopes[scope].popitem(last=False)
        self._count -= 1
        self.forgotten = Forgotten(self.forgotten.count + 1, now, scope)

    def take(self, entries: Iterable[Refused]) -> None:
        """Those of an earlier time."""
        for refused in sorted(entries, key=lambda refused: refused.last):
            self.note(refused)

    def forget_old(self, now: int) -> None:
        """Forgets what was not refused for so many days. `now`: seconds since 1970."""
        limit = now - DAYS * 86400
        for scope, entries in list(self._scopes.items()):
            while entries and next(iter(entries.values())).last < limit:
                entries.popitem(last=False)
                self._count -= 1
            if not entries:
                del self._scopes[scope]
        if self.forgotten.last < limit:
            self.forgotten = Forgotten()

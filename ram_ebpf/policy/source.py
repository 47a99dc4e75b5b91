"""Where in its file each part of a policy stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath


@dataclass(frozen=True)
class PolicySource:
    """The lines of one policy, from 1; all empty for one that was read from no file.

    Apart from the policy, since a pydantic model takes a hundred times as long to give an attribute.
    """

    file: str = ""
    digest: str = ""
    """SHA-256 of its bytes, in hexadecimal; empty for one that was read from no file."""
    lines: tuple[tuple[int, ...], ...] = ()
    """For each registry entry its line and those of its `also` items."""
    denied_lines: tuple[int, ...] = ()
    proxy_lines: tuple[int, ...] = ()
    scope_lines: tuple[tuple[tuple[int, ...], ...], ...] = ()
    """For each scope what `lines` is for the whole policy."""
    scope: int | None = None
    """Whose entries stand behind the first `own` ones in `lines`; None: those of no scope in the file."""
    inside: str = ""
    """Where in that scope they stand: a host's are one key deeper, `.host`."""
    own: int = -1
    """-1: all of them are the whole policy's."""

    def at_scope(self, own: int, scope: int | None, inside: str = "") -> PolicySource:
        """With the registries of one scope behind the `own` ones of the whole policy."""
        more = self.scope_lines[scope] if scope is not None and scope < len(self.scope_lines) else ()
        return replace(self, lines=(*self.lines, *more), scope=scope, inside=inside, own=own)

    def place_of(self, entry: int) -> str:
        """`registries[3]`, or `scopes[1].registries[0]`."""
        if self.own < 0 or entry < self.own:
            return f"registries[{entry}]"
        scope = "scope" if self.scope is None else f"scopes[{self.scope}]"
        return f"{scope}{self.inside}.registries[{entry - self.own}]"

    @cached_property
    def _name(self) -> str:
        return PurePath(self.file).name

    def line_of(self, entry: int, also: int | None = None) -> int:
        """The line of a registry entry or of one of its `also` items; 0 when not from a file."""
        if entry >= len(self.lines):
            return 0
        lines = self.lines[entry]
        position = 0 if also is None else also + 1
        return lines[position] if position < len(lines) else lines[0]

    def origin_of(self, entry: int, also: int | None = None) -> str:
        """`policy.yaml:12`, or `registries[3]` when not from a file."""
        return self._origin(self.line_of(entry, also), self.place_of(entry))

    def origin_of_denied(self, index: int) -> str:
        """As `origin_of`, for an item of `denied`."""
        return self._origin(_at(self.denied_lines, index), f"denied[{index}]")

    def origin_of_proxy(self, index: int) -> str:
        """As `origin_of`, for an item of `proxies`."""
        return self._origin(self.line_of_proxy(index), f"proxies[{index}]")

    def line_of_proxy(self, index: int) -> int:
        """The line of an item of `proxies`; 0 when not from a file."""
        return _at(self.proxy_lines, index)

    def _origin(self, line: int, place: str) -> str:
        return f"{self._name}:{line}" if line else place


def _at(lines: tuple[int, ...], index: int) -> int:
    return lines[index] if index < len(lines) else 0

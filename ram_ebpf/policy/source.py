"""Where in its file each part of a policy stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath


@dataclass(frozen=True)
class PolicySource:
    """The lines of one policy, from 1; all empty for one that was read from no file.

    Apart from the policy, since a pydantic model takes a hundred times as long to give an attribute.
    """

    file: str = ""
    lines: tuple[tuple[int, ...], ...] = ()
    """For each registry entry its line and those of its `also` items."""
    denied_lines: tuple[int, ...] = ()

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
        return self._origin(self.line_of(entry, also), "registries", entry)

    def origin_of_denied(self, index: int) -> str:
        """As `origin_of`, for an item of `denied`."""
        lines = self.denied_lines
        return self._origin(lines[index] if index < len(lines) else 0, "denied", index)

    def _origin(self, line: int, key: str, index: int) -> str:
        return f"{self._name}:{line}" if line else f"{key}[{index}]"

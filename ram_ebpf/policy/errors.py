"""What is wrong with a policy: every error with its place, its problem and its cure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_PRINTED = 100


@dataclass(frozen=True, slots=True)
class PolicyError:
    """One error. `line` counts from 1, and is 0 for what concerns the whole file; `where` is the path
    of keys and indices (from 0), such as `registries[3].ports[0]`, or empty."""

    file: str
    line: int
    where: str
    problem: str
    cure: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = f"{self.where}: " if self.where else ""
        return f"{place}: {where}{self.problem}, {self.cure}"


class PolicyErrors(Exception):  # noqa: N818 - it holds several
    """A policy that cannot be used. `errors` holds them all, by line; str() is one a line, 100 at most."""

    def __init__(self, errors: Iterable[PolicyError]) -> None:
        self.errors = tuple(sorted(errors, key=lambda error: error.line))
        super().__init__(self.errors)

    def __str__(self) -> str:
        lines = [str(error) for error in self.errors[:MAX_PRINTED]]
        if len(self.errors) > MAX_PRINTED:
            lines.append(f"and {len(self.errors) - MAX_PRINTED} more")
        return "\n".join(lines)

"""The error for a host pattern that cannot be used."""

from __future__ import annotations


class PatternError(ValueError):
    """`problem` says what is wrong, `cure` what would be right; str() is both, with a comma between."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem, cure)
        self.problem = problem
        self.cure = cure

    def __str__(self) -> str:
        return f"{self.problem}, {self.cure}"

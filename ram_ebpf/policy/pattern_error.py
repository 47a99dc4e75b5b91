"""The error for a host pattern that cannot be used."""

from __future__ import annotations


class PatternError(ValueError):
    """`problem` says what is wrong, `cure` what would be right; str() is both, with a comma between.

    `cure_alone` is the cure for a place where a host pattern stands alone and no key can be written. By
    default it is `cure`.
    """

    def __init__(self, problem: str, cure: str, cure_alone: str | None = None) -> None:
        super().__init__(problem, cure)
        self.problem = problem
        self.cure = cure
        self.cure_alone = cure if cure_alone is None else cure_alone

    def __str__(self) -> str:
        return f"{self.problem}, {self.cure}"

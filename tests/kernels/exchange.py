"""What host and guest leave for each other in the directory that they share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

JUNIT = "junit-{}.xml"  # one a pytest, from 0
# Written by guest_init.sh where the kernel lacks so much that no Python can be started.
MISSING = "missing"
_JOB = "job.json"
_OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Job:
    """For the guest."""

    bytecode: str
    pytest: list[list[str]]  # the arguments of each of those that run side by side
    seconds: float  # from the guest's boot

    def write(self, share: Path) -> None:
        """Host only."""
        (share / _JOB).write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, share: Path) -> Job:
        """Guest only."""
        return cls(**json.loads((share / _JOB).read_text(encoding="utf-8")))


@dataclass
class Outcome:
    """Of the guest, beside junit.xml."""

    kernel: str
    missing: list[str] = field(default_factory=list)
    programs: list[dict[str, Any]] = field(default_factory=list)
    pytest: list[int] | None = None  # exit statuses; None if not all came to their end

    def write(self, share: Path) -> None:
        """Guest only."""
        (share / _OUTCOME).write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def read(cls, share: Path) -> Outcome | None:
        """Host only. None when the guest did not get that far."""
        try:
            return cls(**json.loads((share / _OUTCOME).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError):
            return None

"""What memory an instance has: its own, and the kernel's for its maps and programs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Bytes; and how many descriptors there are."""

    resident: int
    bpf: int
    """Of the kernel, for maps and programs of which the process has a descriptor."""
    descriptors: int

    def __str__(self) -> str:
        return (
            f"{self.resident / 2**20:.1f} MiB resident, {self.bpf / 2**20:.1f} MiB of maps and programs, "
            f"{self.descriptors} descriptors"
        )


def measure(pid: int) -> Memory:
    """Of a process. Raises OSError where there is none."""
    process = Path(f"/proc/{pid}")
    resident = next(
        int(line.split()[1]) * 1024
        for line in (process / "status").read_text(encoding="ascii", errors="replace").splitlines()
        if line.startswith("VmRSS:")
    )
    sizes: dict[str, int] = {}
    count = 0
    for path in (process / "fdinfo").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            said = dict(
                line.split(":", 1) for line in path.read_text(encoding="ascii").splitlines() if ":" in line
            )
            count += 1
            for kind in ("map_id", "prog_id"):  # a map may have several descriptors
                if kind in said:
                    sizes[f"{kind} {said[kind].strip()}"] = int(said.get("memlock", "0"))
    return Memory(resident, sum(sizes.values()), count)

"""Another version of ram-ebpf: a copy of this one, in which what outlives an instance is different."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Change:
    """What is replaced in bpf/abi.h, and in its mirror."""

    header: tuple[str, str]
    mirror: tuple[str, str]


# One field more, which moves others, makes the structure larger, or both.
CONNECTION = Change(
    ("__u64 identity;\t  /* of the rule;", "__u64 spare;\n\t__u64 identity;\t  /* of the rule;"),
    (
        '("named", ctypes.c_uint32),\n        ("identity", ctypes.c_uint64),',
        '("named", ctypes.c_uint32),\n        ("spare", ctypes.c_uint64),\n'
        '        ("identity", ctypes.c_uint64),',
    ),
)
CONFIG = Change(
    ("__u64 grace_ns;", "__u64 spare;\n\t__u64 grace_ns;"),
    (
        '("grace_ns", ctypes.c_uint64),',
        '("spare", ctypes.c_uint64),\n        ("grace_ns", ctypes.c_uint64),',
    ),
)
OPENING = Change(
    ("__u32 flags; /* enum ram_opening_flag */", "__u32 flags; /* enum ram_opening_flag */\n\t__u64 spare;"),
    (
        '("rule", ctypes.c_uint32), ("flags", ctypes.c_uint32)]',
        '("rule", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("spare", ctypes.c_uint64)]',
    ),
)
# No structure differs, but what a number in one of them means.
STAGE = Change(
    (
        "RAM_STAGE_NAMED = 3, /* its name was read; another ClientHello may follow, and would be read too "
        "*/\n\tRAM_STAGE_CUT = 4,",
        "RAM_STAGE_CUT = 3,\n\tRAM_STAGE_NAMED = 4,",
    ),
    ("    NAMED = 3\n    CUT = 4\n", "    CUT = 3\n    NAMED = 4\n"),
)


@dataclass(frozen=True)
class Version:
    """A copy of the tree. What it compiles it keeps beside."""

    tree: Path

    @property
    def command(self) -> list[str]:
        """By which it is started."""
        return ["env", f"--chdir={self.tree}", sys.executable, "-m", "ram_ebpf"]

    @property
    def options(self) -> list[str]:
        """Of `run`."""
        return ["--cache", str(self.tree / "cache")]


def make(directory: Path, change: Change) -> Version:
    """Copies what runs, and changes it."""
    for part in ("ram_ebpf", "bpf"):
        shutil.copytree(ROOT / part, directory / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (before, after) in (
        ("bpf/abi.h", change.header),
        ("ram_ebpf/dataplane/abi.py", change.mirror),
    ):
        file = directory / name
        text = file.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} has not one {before!r}: adapt tests/faults/versions.py"
        file.write_text(text.replace(before, after), encoding="utf-8")
    return Version(directory)

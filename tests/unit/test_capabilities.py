"""Capabilities that a process gives up."""

from __future__ import annotations

import re
import subprocess
import sys

SETS = ("Inh", "Prm", "Eff")
SCRIPT = """\
from pathlib import Path
from ram_ebpf.capabilities import Capability, keep_only
print(Path("/proc/self/status").read_text())
keep_only([Capability.SYS_ADMIN, Capability.BPF])
print(Path("/proc/self/status").read_text())
keep_only([Capability.SYS_ADMIN, Capability.SYS_RESOURCE])
print(Path("/proc/self/status").read_text())
"""


def test_what_is_not_kept_is_gone_for_good() -> None:
    said = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    for name in SETS:
        before, then, at_last = (int(found, 16) for found in re.findall(rf"Cap{name}:\s*(\w+)", said))
        assert then == before & (1 << 21 | 1 << 39)
        assert at_last == then & 1 << 21

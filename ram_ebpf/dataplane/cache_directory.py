"""Where compiled programs are kept."""

from __future__ import annotations

import os
from pathlib import Path

# RAM_EBPF_CACHE moves it, for hosts with a read-only /var and for tests.
DEFAULT_DIRECTORY = Path(os.environ.get("RAM_EBPF_CACHE") or "/var/cache/ram-ebpf")

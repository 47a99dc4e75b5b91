"""Where the organisation's authority is on disk; see authority.py."""

from __future__ import annotations

import os
from pathlib import Path

# RAM_EBPF_CA moves it, for tests and for hosts where /var/lib is not ours to write.
DIRECTORY = Path(os.environ.get("RAM_EBPF_CA") or "/var/lib/ram-ebpf/ca")
CERTIFICATE = "ca.crt"
KEY = "ca.key"


def is_there(directory: Path = DIRECTORY) -> bool:
    """Whether there is anything of one, to be used or not."""
    return (directory / KEY).exists() or (directory / CERTIFICATE).exists()

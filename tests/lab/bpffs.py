"""A BPF file system for ram-ebpf in the lab: the machine may have none, and its own is not for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

VARIABLE = "RAM_EBPF_BPFFS"
_NAME = "bpf"


def mount(directory: Path) -> Path:
    """Mount one below a lab's state directory."""
    target = directory / _NAME
    target.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(target)], check=True)
    return target


def unmount(directory: Path) -> None:
    """Unmount it, if it is there. Lazily: a program of the lab may still be on its way out."""
    target = directory / _NAME
    if target.is_mount():
        subprocess.run(["umount", "--lazy", str(target)], check=True)

"""Lines for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from ram_ebpf.printable import printable

__all__ = ["print_lines", "printable"]


def one_cell_each(text: str) -> str:
    """As printable(), and of ASCII alone, so that each character takes one cell of a terminal."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def print_lines(lines: Iterable[str]) -> None:
    """To standard output, each at once; what its encoding cannot hold is written as its number."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in lines:
        print(printable(line).encode(encoding, "backslashreplace").decode(encoding), flush=True)

"""Text from strangers, made fit for one line of a terminal, a log or a journal."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line. Names come from the network: no control character of theirs may reach a reader."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

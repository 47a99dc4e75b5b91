"""How values are shown in messages: short, quoted, and safe to print on a terminal."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN_CHARACTERS = 60


def show(text: str) -> str:
    """`text` in single quotes, cut to 60 characters, with unprintable characters escaped.

    What an administrator's file contains ends up in logs and terminals, so control and bidirectional
    formatting characters must not pass through.
    """
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
    return f"'{cut}'" if cut.isprintable() else ascii(cut)


def describe(value: object) -> str:
    """`value`, as read from YAML, in plain words: `'abc'`, `the number 5`, `a list`, `nothing`."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return show(value)
    if isinstance(value, list | tuple):
        return "a list"
    return "a mapping"


def in_yaml(pattern: str) -> str:
    """A host pattern as it is written in YAML, where a `*` at the start needs quotes."""
    return f'"{pattern}"' if "*" in pattern else pattern


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, or None when nothing is near enough to be worth suggesting."""
    found = difflib.get_close_matches(word[:100].lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def alternatives(words: Iterable[str]) -> str:
    """`a, b or c`."""
    *first, last = list(words)
    return f"{', '.join(first)} or {last}" if first else last


def plural(count: int, noun: str, several: str | None = None) -> str:
    """`1 rule`, `2 rules`; `several`: where that is not the noun with an s."""
    return f"{count} {noun}" if count == 1 else f"{count} {several or noun + 's'}"

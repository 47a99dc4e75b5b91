"""The table of docs/refusals.md between two markers: written by `make refusals`, read by a test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "refusals.md"
BEGIN = "<!-- What follows is written by `make refusals`. -->"
END = "<!-- End of what `make refusals` writes. -->"
_HEAD = "| client | version | last line | seconds | since the name was asked for |\n|---|---|---|---|---|"
_ROW = re.compile(r"^\| ([^|]*) \| ([^|]*) \| (.*) \| ([^|]*) \| ([^|]*) \|$")
_SECTION = re.compile(r"^### (.*)$")


@dataclass(frozen=True)
class Cell:
    """What one version of a client printed, and its seconds: of the whole command, and of that since it asked
    for the name; None where it did not."""

    client: str
    version: str
    line: str
    seconds: float
    since_asked: float | None


@dataclass(frozen=True)
class Section:
    """One kind of refusal. `note`: what is said below the table, if anything."""

    title: str
    about: str
    cells: Sequence[Cell]
    note: str


def render(sections: Iterable[Section], legend: str) -> str:
    """The text between the markers."""
    parts = [legend]
    for section in sections:
        rows = "\n".join(_rows(section.cells))
        parts.append(f"### {section.title}\n\n{section.about}\n\n{_HEAD}\n{rows}")
        if section.note:
            parts.append(section.note)
    return "\n\n".join(parts) + "\n"


def _rows(cells: Sequence[Cell]) -> Iterable[str]:
    """One for each client and line; versions that print the same share it."""
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.client, cell.line), []).append(cell)
    for (client, line), found in rows.items():
        versions = ", ".join(cell.version for cell in found)
        seconds = _span([cell.seconds for cell in found])
        since = _span([cell.since_asked for cell in found if cell.since_asked is not None])
        yield f"| {client} | {versions} | {_code(line)} | {seconds} | {since} |"


def _span(seconds: Sequence[float]) -> str:
    if not seconds:
        return "not asked"
    least, most = f"{min(seconds):.2f}", f"{max(seconds):.2f}"
    return least if least == most else f"{least} to {most}"


def _code(line: str) -> str:
    """As code in a table's cell (GitHub Flavored Markdown: a pipe ends it there too)."""
    escaped = line.replace("|", "\\|")
    return f"`` {escaped} ``" if "`" in escaped else f"`{escaped}`"


def insert(document: str, text: str) -> str:
    """The document with this between the markers. Raises ValueError where they are not."""
    before, found, rest = document.partition(f"{BEGIN}\n")
    _, also_found, after = rest.partition(f"{END}\n")
    if not found or not also_found:
        raise ValueError(
            f"the document lacks the lines {BEGIN!r} and {END!r}, between which the table belongs"
        )
    return f"{before}{BEGIN}\n\n{text}\n{END}\n{after}"


def versions_by_client(document: str) -> dict[tuple[str, str], list[str]]:
    """Which versions there are of each section's title and client. Raises ValueError as `insert` does."""
    insert(document, "")
    found: dict[tuple[str, str], list[str]] = {}
    title = ""
    for line in document.partition(BEGIN)[2].partition(END)[0].splitlines():
        if section := _SECTION.match(line):
            title = section[1]
        elif (row := _ROW.match(line)) and row[1] not in ("client", "---"):
            found.setdefault((title, row[1]), []).extend(row[2].split(", "))
    return found

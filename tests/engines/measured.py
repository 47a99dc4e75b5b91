"""The seconds that were measured, as a table at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

_COLUMNS = ("allowed", "refused", "since asked")


@dataclass
class Measured:
    """Rows: engine, what it did, how that ended, seconds."""

    rows: list[tuple[str, str, str, float]] = field(default_factory=list)

    def add(self, engine: str, what: str, verdict: str, seconds: float) -> None:
        """Note one."""
        self.rows.append((engine, what, verdict, seconds))

    def table(self) -> list[str]:
        """The lines of a Markdown table, with one row for each engine and thing that it did."""
        cells: dict[tuple[str, str], dict[str, float]] = {}
        for engine, what, verdict, seconds in self.rows:
            cells.setdefault((engine, what), {})[verdict] = seconds
        lines = [
            "| engine | what | allowed | refused | of it since the name was asked for |",
            "|---|---|---|---|---|",
        ]
        for (engine, what), found in cells.items():
            texts = (f"{found[key]:.2f}" if key in found else "" for key in _COLUMNS)
            lines.append(f"| {engine} | {what} | {' | '.join(texts)} |")
        return lines

"""What the demo shows: a line per step, and a table of the daemon's decisions."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .daemon import Decision

# Without a terminal rich would take 80 columns, which breaks most of the table's cells.
_PLAIN_WIDTH = 130


def console() -> Console:
    """Make the console, wide enough also for a file or pipe."""
    result = Console(highlight=False)
    return result if result.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


class Steps:
    """Prints the steps and remembers those that went wrong."""

    def __init__(self, output: Console) -> None:
        self._output = output
        self.failures: list[str] = []

    def title(self, text: str) -> None:
        """Print a heading."""
        self._output.print(f"\n[bold]{escape(text)}[/bold]")

    def note(self, text: str) -> None:
        """Print a remark."""
        self._output.print(f"    [dim]{escape(text)}[/dim]")

    def check(self, good: bool, text: str, seconds: float | None = None, detail: str = "") -> None:
        """Print whether a step went as expected."""
        mark = "[green]✓[/green]" if good else "[red]✗[/red]"
        took = "" if seconds is None else f"  [cyan]{seconds:.3f} s[/cyan]"
        self._output.print(f"  {mark} {escape(text)}{took}")
        if detail:
            self.note(detail)
        if not good:
            # The rest of a daemon's last words stands above.
            self.failures.append(text.partition("\n")[0].rstrip(": "))


def table(decisions: Sequence[Decision], limit: int | None = None) -> Table:
    """Build the table of decisions; with a limit, of the last ones only and in a line each."""
    shown = decisions[-limit:] if limit else decisions
    denied = sum(not decision.allowed for decision in decisions)
    result = Table(
        title=f"Decisions: {len(decisions) - denied} allowed, {denied} denied",
        title_justify="left",
        header_style="bold",
        row_styles=["", "dim"],
    )
    for column in ("time", "verdict", "host", "address", "process"):
        result.add_column(column, no_wrap=True)
    result.add_column("why", ratio=1, no_wrap=limit is not None, overflow="ellipsis" if limit else "fold")
    for decision in shown:
        colour = "green" if decision.allowed else "red"
        why = decision.explanation or decision.reason or decision.rule
        result.add_row(
            escape(_clock(decision.time)),
            f"[{colour}]{escape(decision.verdict)}[/{colour}]",
            escape(decision.host),
            escape(_endpoint(decision)),
            escape(f"{decision.process} {decision.pid or ''}".strip()),
            escape(why),
        )
    return result


def _endpoint(decision: Decision) -> str:
    if not decision.address:
        return ""
    address = f"[{decision.address}]" if ":" in decision.address else decision.address
    return f"{address}:{decision.port}" if decision.port else address


def _clock(text: str) -> str:
    # ISO 8601 to the millisecond; the date and the zone are the same in all lines.
    return text.partition("T")[2][:12] or text

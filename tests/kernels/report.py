"""What a run came to, from what the guest left."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .exchange import JUNIT, MISSING, Outcome

_PANICS = (
    (
        "Unable to mount root fs",
        "the kernel did not mount its root: it must have 9p, virtio and PCI built in "
        "(=y: CONFIG_9P_FS, CONFIG_NET_9P_VIRTIO, CONFIG_VIRTIO_PCI)",
    ),
    ("Kernel panic", "the kernel panicked"),
)
_SILENT = "there was nothing on the console: is it an x86_64 kernel with CONFIG_SERIAL_8250_CONSOLE built in?"


@dataclass
class Summary:
    """Counts, and why the run failed beside failed tests."""

    kernel: str = "?"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    programs: list[dict[str, object]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether tests have run and all went well."""
        return self.passed > 0 and not self.failed and not self.problems

    def __str__(self) -> str:
        lines = [f"kernel {self.kernel}: {problem}" for problem in self.problems]
        counts = f"{self.passed} passed, {self.failed} failed"
        if self.skipped:
            counts += f", {self.skipped} skipped"
        lines.append(f"kernel {self.kernel}: {counts}, {self.seconds:.0f} seconds")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """As JSON, for machines."""
        path.write_text(json.dumps({**asdict(self), "ok": self.ok}, indent=2) + "\n", encoding="utf-8")


def summarize(share: Path, console: Path, in_time: bool, limit: float) -> Summary:
    """Reads what is there, which is anything from nothing to everything."""
    outcome = Outcome.read(share)
    summary = Summary()
    for junit in share.glob(JUNIT.format("*")):
        _count(junit, summary)
    if outcome is not None:
        summary.kernel = outcome.kernel
        summary.programs = outcome.programs
        summary.problems += [f"lacks {feature}" for feature in outcome.missing]
        unloaded = [str(program["program"]) for program in outcome.programs if program["error"]]
        if unloaded:
            summary.problems.append(f"does not load {', '.join(unloaded)}")
    if not summary.problems:
        _explain(summary, outcome, share / MISSING, console, in_time, limit)
    return summary


def _explain(
    summary: Summary, outcome: Outcome | None, missing: Path, console: Path, in_time: bool, limit: float
) -> None:
    said = console.read_text(encoding="utf-8", errors="replace") if console.exists() else ""
    panic = next((text for sign, text in _PANICS if sign in said), None)
    if missing.exists():
        summary.problems.append(f"lacks {missing.read_text(encoding='utf-8').strip()}")
    elif panic and not (outcome and outcome.pytest is not None):
        summary.problems.append(panic)
    elif not in_time and not said.strip():
        summary.problems.append(_SILENT)
    elif not in_time or (outcome and outcome.programs and outcome.pytest is None and summary.passed):
        summary.problems.append(f"not done after {limit:.0f} seconds (--timeout)")
    elif outcome is None or outcome.pytest is None:
        summary.problems.append("the guest ended early; its console says why")
    elif any(outcome.pytest) and not summary.failed:
        summary.problems.append(f"pytest ended with {max(outcome.pytest)}")


def _count(junit: Path, summary: Summary) -> None:
    try:
        suites = ElementTree.parse(junit).getroot().iter("testsuite")
    except (FileNotFoundError, ElementTree.ParseError):
        return
    for suite in suites:
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        summary.failed += failed
        summary.skipped += skipped
        summary.passed += int(suite.get("tests", 0)) - failed - skipped

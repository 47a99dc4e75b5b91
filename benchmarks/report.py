"""Figures, the aims beside them, and the machine that they come from: as a table and as JSON."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import ram_ebpf
from benchmarks.measure import Estimate
from ram_ebpf.dataplane.compiler import bcc_version
from tests.lab import programs

_TARGET = Path(__file__).parents[1] / "build" / "bench"
_BUSY = 0.4  # load average a core
_VERSIONS = {
    "dnsmasq": ("--version", r"version (\S+)"),
    "dnsperf": ("-h", r"Version (\S+)"),
    "nft": ("--version", r"v(\S+)"),
}


@dataclass(frozen=True)
class Aim:
    """The most that a figure may be; `value` is that figure."""

    limit: float
    value: Estimate

    @property
    def verdict(self) -> str:
        """Whether it is met. A limit inside the interval is not decided by this run."""
        if self.value.low <= self.limit < self.value.high and self.value.count > 1:
            return "undecided"
        return "met" if self.value.median <= self.limit else "not met"


@dataclass(frozen=True)
class Figure:
    """One comparison. `values` are what it was made of, by candidate."""

    name: str
    ratio: Estimate
    values: Mapping[str, float]
    unit: str
    aim: Aim | None = None
    aim_unit: str = ""

    def line(self) -> str:
        """The ratio first."""
        interval = f"{_short(self.ratio.low)}-{_short(self.ratio.high)}" if self.ratio.count > 1 else ""
        values = ", ".join(f"{name} {_short(value)}" for name, value in self.values.items())
        text = f"  {_short(self.ratio.median):>7}  {interval:<13}  {self.name:<52}  {values} {self.unit}"
        if self.aim:
            text += f"  [aim: at most {self.aim.limit:g}{self.aim_unit}: {self.aim.verdict}]"
        return text.rstrip()


@dataclass
class Part:
    """What one module of this package measured. `details` go into the JSON alone."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def text(self) -> str:
        """As a person reads it."""
        lines = [f"{self.title} ({self.seconds:.0f} s)"]
        lines += [figure.line() for figure in self.figures]
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """With the verdicts."""
        figures = [asdict(figure) for figure in self.figures]
        for item, figure in zip(figures, self.figures, strict=True):
            if figure.aim:
                item["aim"]["verdict"] = figure.aim.verdict
        return {
            "seconds": round(self.seconds, 1),
            "figures": figures,
            "notes": self.notes,
            "details": self.details,
        }


Measure = Callable[[bool], Part]


def _short(value: float) -> str:
    """Three digits are what such a measurement gives."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What the figures depend on, beside the sources."""
    cpu = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"), re.MULTILINE)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "virtual": "hypervisor" in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
        "memory_mb": int(memory[1]) // 1024 if memory else None,
        "kernel": platform.release(),
        "versions": {
            "ram-ebpf": ram_ebpf.__version__,
            "python": platform.python_version(),
            "bcc": bcc_version().split("'")[1] if "'" in bcc_version() else bcc_version(),
            **{name: _version(name, *how) for name, how in _VERSIONS.items()},
        },
    }


def _version(name: str, option: str, pattern: str) -> str:
    result = subprocess.run([programs.find(name), option], capture_output=True, text=True, check=False)
    found = re.search(pattern, result.stdout + result.stderr)
    return found[1] if found else "unknown"


def _describe(where: Mapping[str, Any]) -> str:
    kind = "virtual, " if where["virtual"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    return f"{where['cpu']} ({kind}{where['cores']} cores), Linux {where['kernel']}; {versions}"


def run(measures: Mapping[str, Measure], words: Sequence[str] | None = None) -> int:
    """Measures all of it, prints the table and writes the JSON; the exit status."""
    names = ", ".join(measures)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=f"Measures {names}.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, which show that it runs")
    parser.add_argument("--output", type=Path, help=f"the JSON (default: a new file below {_TARGET})")
    arguments = parser.parse_args(words)
    if os.geteuid() != 0:
        print("the benchmarks need root, as the lab does: run `sudo make bench`", file=sys.stderr)
        return os.EX_NOPERM
    if importlib.util.find_spec("bcc") is None:
        print("python3-bpfcc is not installed: run `sudo make bench`", file=sys.stderr)
        return os.EX_UNAVAILABLE
    where = machine()
    begun = datetime.now(timezone.utc)
    loads = [os.getloadavg()[0]]
    print(_describe(where))
    if loads[0] > _BUSY * (os.cpu_count() or 1):
        print(f"something else is running here (load average {loads[0]:.1f}): trust the ratios less")
    print("ratio, its 95 % interval, what, the medians that it is made of", flush=True)
    parts = {}
    for name, measure in measures.items():
        started = time.perf_counter()
        parts[name] = measure(arguments.quick)
        parts[name].seconds = time.perf_counter() - started
        loads.append(os.getloadavg()[0])
        print(parts[name].text(), flush=True)
    report = {
        "date": begun.isoformat(timespec="seconds"),
        "quick": arguments.quick,
        "machine": where,
        "load_average": [round(load, 2) for load in loads],
        "parts": {name: part.as_json() for name, part in parts.items()},
    }
    target = arguments.output or _TARGET / _file_name(begun, list(measures))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"{sum(part.seconds for part in parts.values()):.0f} s; {target}")
    return 0


def _file_name(begun: datetime, names: Sequence[str]) -> str:
    stamp = begun.strftime("%Y-%m-%d-%H%M%S")
    return f"{stamp}-{names[0]}.json" if len(names) == 1 else f"{stamp}.json"

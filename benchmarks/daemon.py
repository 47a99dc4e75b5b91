"""What the daemon itself costs: its start, its memory, and its processor time while nothing happens.

    python -m benchmarks.daemon [--quick]

A start is the time from the fork of its process to the line `ready` of its log, at which all scopes are
governed; where it compiles also to the line `complete`, from which on connections wait for nothing any more.
It is taken as a multiple of what Python takes to start and end in the same place, which depends on
the machine as much. Memory is that of the daemon alone, and with the responder's process, and so is
the processor time of 20 seconds.
"""

from __future__ import annotations

import compileall
import contextlib
import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks import report
from benchmarks.measure import Rounds, estimate, middle, ratios, take_turns
from benchmarks.report import Aim, Figure, Part
from benchmarks.rules_scale import policy_text
from ram_ebpf import own_process
from tests.lab.lab import Lab
from tests.lab.processes import stop

_AIM_CACHED = 0.5  # seconds
_AIM_COMPILED = 2.5
_AIM_MEGABYTES = 45.0
_AIM_IDLE = 0.2  # percent of one processor

_FEW = """\
version: 1
registries:
  - host: allowed.registry.test
  - host: "*.registry.test"
    private: true
"""
_SIZES, _SIZES_QUICK = (2, 10_000, 100_000), (2, 1_000)
_ROUNDS, _ROUNDS_QUICK = 9, 2
_SETTLING = 10.0  # seconds after the start in which caches fill and what is needed no more is given back
_IDLE, _IDLE_QUICK = 20.0, 3.0  # seconds
_IDLE_TURNS = 3
_PATIENCE = 120.0
_ROOT = Path(__file__).parents[1]
_UNIT = {"MALLOC_ARENA_MAX": "2"}  # as packaging/systemd/ram-ebpf.service has it
PYTHON, CACHED, COMPILED, COMPLETE = "python", "cached", "compiled", "complete"
ALONE, ALL = "daemon", "with its processes"


class Started:
    """A daemon on a control group of its own."""

    def __init__(self, process: subprocess.Popen[str], log: Path, begun: float) -> None:
        """Waits until it is ready, which it was after so many `seconds`."""
        self.process, self.log, self._begun = process, log, begun
        self.seconds = self.seconds_until("ready")

    def seconds_until(self, event: str) -> float:
        """Waits for a line of its log; from the fork of its process."""
        deadline = self._begun + _PATIENCE
        while f'"event": "{event}"' not in (said := self.log.read_text(encoding="utf-8")):
            if self.process.poll() is not None or time.perf_counter() > deadline:
                raise RuntimeError(f"the daemon has not said {event}: {said[-2000:]}")
            time.sleep(0.002)
        return time.perf_counter() - self._begun

    @property
    def pids(self) -> list[int]:
        """The daemon's process, and those that it has started."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task").glob("*/children")
        return [pid, *(int(word) for path in children for word in path.read_text(encoding="ascii").split())]


_numbers = itertools.count(1)


def _environment() -> dict[str, str]:
    """Of the unit, and by which modules are found without `site`, as the installed program finds them
    (packaging/programs.py)."""
    return {**_UNIT, "PYTHONPATH": own_process.environment()["PYTHONPATH"]}


@contextlib.contextmanager
def started(lab: Lab, policy: str, cache: Path) -> Iterator[Started]:
    """`ram-ebpf run`, until the block ends. Its log goes to a file, as to a journal.

    With a cache that was used before, nothing has changed since, as at most starts of a host.
    """
    log = lab.directory / f"daemon-bench-{next(_numbers)}.log"
    file = lab.directory / f"{cache.name}.yaml"
    if not file.exists() or file.read_text(encoding="utf-8") != policy:
        file.write_text(policy, encoding="utf-8")
    cgroup = lab.new_cgroup(cache.name)
    argv = own_process.command("ram_ebpf", "run", "--policy", str(file), "--log-format", "json")
    argv += ["--scope", f"cgroup:{cgroup}", "--cache", str(cache)]
    begun = time.perf_counter()
    with log.open("w", encoding="utf-8") as stream:
        process = lab.client.popen(
            argv, env=_environment(), cwd=_ROOT, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        yield Started(process, log, begun)
    finally:
        # Asked to end, and waited for: killed, it would leave its enforcement behind.
        stop(process, 30.0)
        lab.client.children.remove(process)
        cgroup.rmdir()


def _starts(lab: Lab, rounds: int) -> Rounds:
    warm = lab.directory / "daemon-bench-cache"
    complete: list[float] = []

    def start(cache: Path) -> float:
        with started(lab, _FEW, cache) as daemon:
            said = next(line for line in _lines(daemon.log) if line["event"] == "ready")
            assert said["compiled"] is (cache is not warm), said
            if cache is not warm:
                complete.append(daemon.seconds_until("complete"))
            return daemon.seconds

    with started(lab, _FEW, warm) as daemon:
        daemon.seconds_until("complete")  # all is in the cache
    taken = take_turns(
        {
            PYTHON: lambda: _python(lab),
            CACHED: lambda: start(warm),
            COMPILED: lambda: start(lab.directory / f"daemon-bench-cold-{next(_numbers)}"),
        },
        rounds,
    )
    return [{**one, COMPLETE: seconds} for one, seconds in zip(taken, complete[1:], strict=True)]


def _lines(log: Path) -> Iterator[dict[str, object]]:
    for line in log.read_text(encoding="utf-8").splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _python(lab: Lab) -> float:
    """Seconds in which Python starts and ends, in the same place and by the same way."""
    begun = time.perf_counter()
    process = lab.client.popen([sys.executable, "-S", "-c", "pass"], env=_environment(), cwd=_ROOT)
    process.wait()
    seconds = time.perf_counter() - begun
    lab.client.children.remove(process)
    return seconds


def megabytes(pid: int) -> dict[str, float]:
    """Rss, Pss and Anonymous of a process (proc_pid_smaps(5)), in units of 10^6 bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    found = dict(re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE))
    return {name: int(found[name]) * 1024 / 1e6 for name in ("Rss", "Pss", "Anonymous")}


def processor_seconds(pid: int) -> float:
    """Of all threads of a process that live, to the nanosecond (Documentation/scheduler/sched-stats.rst)."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        total += int(path.read_text(encoding="ascii").split()[0])
    return total / 1e9


def _memory(lab: Lab, sizes: tuple[int, ...]) -> dict[str, dict[str, dict[str, float]]]:
    """By the number of rules: of the daemon, and of all its processes together."""
    found = {}
    for size in sizes:
        policy = _FEW if size == 2 else policy_text(size)
        with started(lab, policy, lab.directory / "daemon-bench-cache") as daemon:
            time.sleep(_SETTLING)
            each = [megabytes(pid) for pid in daemon.pids]
            everything = {name: sum(one[name] for one in each) for name in each[0]}
            found[str(size)] = {"daemon": each[0], "with its processes": everything}
            found[str(size)]["start"] = {"seconds": daemon.seconds}
    return found


def _idle(lab: Lab, seconds: float, turns: int) -> list[dict[str, float]]:
    """Processor seconds of each turn: of the daemon, with all its processes, and of a start of Python."""
    taken = []
    with started(lab, _FEW, lab.directory / "daemon-bench-cache") as daemon:
        time.sleep(_SETTLING)
        for _ in range(turns):
            before = {pid: processor_seconds(pid) for pid in daemon.pids}
            time.sleep(seconds)
            after = {pid: processor_seconds(pid) for pid in daemon.pids}
            used = {pid: after[pid] - before.get(pid, 0.0) for pid in after}
            own = used[daemon.process.pid]
            taken.append({ALL: sum(used.values()), ALONE: own, PYTHON: _processor_seconds_of_python()})
    return taken


def _processor_seconds_of_python() -> float:
    script = "import resource; u = resource.getrusage(resource.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure(quick: bool) -> Part:
    """Starts, then memory, then what it does while nothing happens."""
    # As an installation does; where Python writes no bytecode, each start would compile all modules.
    compileall.compile_dir(_ROOT / "ram_ebpf", quiet=1)
    with Lab() as lab:
        starts = _starts(lab, _ROUNDS_QUICK if quick else _ROUNDS)
        memory = _memory(lab, _SIZES_QUICK if quick else _SIZES)
        seconds = _IDLE_QUICK if quick else _IDLE
        idle = _idle(lab, seconds, 1 if quick else _IDLE_TURNS)
    part = Part("daemon: its start, its memory, and what it does while nothing happens")
    for what, name, aim in (
        (CACHED, "start to enforcing, bytecode in the cache", _AIM_CACHED),
        (COMPILED, "start to enforcing, compiled first", _AIM_COMPILED),
        (COMPLETE, "the same, to the end of all compiling", None),
    ):
        both = {name: value for name, value in middle(starts).items() if name in (what, PYTHON)}
        wanted = None if aim is None else Aim(aim, estimate(one[what] for one in starts))
        part.figures.append(
            Figure(f"{name} / start of Python", ratios(starts, what, PYTHON), both, "s", wanted, " s")
        )
    part.figures += _of_memory(memory)
    for what, name in ((ALONE, "daemon alone"), (ALL, "all its processes")):
        percent = estimate(100 * one[what] / seconds for one in idle)
        shown = {what: middle(idle)[what], PYTHON: middle(idle)[PYTHON]}
        aim_of_idle = Aim(_AIM_IDLE, percent) if what == ALONE and not quick else None
        title = f"processor time of {seconds:.0f} idle seconds, {name} / start of Python"
        part.figures.append(Figure(title, ratios(idle, what, PYTHON), shown, "s", aim_of_idle, " %"))
    part.details = {"start_seconds": starts, "memory_mb": memory, "idle_seconds": idle}
    return part


def _of_memory(memory: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[Figure]:
    fewest, *_, most = memory
    for what, kind, title in (
        ("daemon", "Rss", "resident memory (RSS)"),
        ("daemon", "Pss", "the same, shared pages by their part (PSS)"),
        ("with its processes", "Pss", "PSS with the responder's process"),
    ):
        values = {size: figures[what][kind] for size, figures in memory.items()}
        ratio = estimate([values[most] / values[fewest]])
        aim = Aim(_AIM_MEGABYTES, estimate([values[most]])) if kind == "Rss" and most == "100000" else None
        yield Figure(f"{title}, {most} / {fewest} rules", ratio, values, "MB", aim, " MB")


if __name__ == "__main__":
    raise SystemExit(report.run({"daemon": measure}))

"""How many lines the log gets about one reason and source: a token bucket for each, in bounded memory.

Who causes lines chooses much of what is in them: names and addresses, and the name of the process as well. So
there is a second bucket around those of one scope, which nobody but the policy names.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Any

from ram_ebpf.policy.choices import Switch
from ram_ebpf.policy.enforced import LogLike

_MOST = 1024  # sources that have a bucket of their own
_MOST_REPORTED = 10  # lines of one report, beside the one for all others
_OF_A_SCOPE = 10  # times what a source may have, for all sources of a scope together


@dataclass(frozen=True, slots=True)
class Source:
    """What a line tells, and of whom. What is not known is None."""

    event: str
    reason: str
    process: str | None = None
    cgroup: str | None = None
    scope: str | None = None

    def __str__(self) -> str:
        words = [f"by {self.process}"] if self.process else []
        if self.cgroup or self.scope:
            words.append(f"in {self.cgroup or self.scope}")
        return " ".join(words) or "by others"


class _Bucket:
    """Fills by the clock. `times`: of what the options say for one source."""

    __slots__ = ("_limits", "_since", "_times", "_tokens")

    def __init__(self, limits: LineLimits, times: int) -> None:
        self._limits = limits
        self._times = times
        self._tokens = float(limits.options.burst * times)
        self._since = limits.clock()

    def fill(self) -> float:
        """How many lines may be written now."""
        options, now = self._limits.options, self._limits.clock()
        more = (now - self._since) * options.lines_per_minute * self._times / 60
        self._tokens = min(self._tokens + more, float(options.burst * self._times))
        self._since = now
        return self._tokens

    @property
    def is_full(self) -> bool:
        """So that it is as good as a new one."""
        return self.fill() >= self._limits.options.burst * self._times

    def take(self) -> None:
        """One line."""
        self._tokens -= 1


class Allowance:
    """What one source may still have written."""

    __slots__ = ("_limits", "_own", "_shared", "source")

    def __init__(self, limits: LineLimits, source: Source, own: _Bucket, shared: _Bucket) -> None:
        self.source = source
        self._limits, self._own, self._shared = limits, own, shared

    @property
    def is_spent(self) -> bool:
        """Whether a line would be too much now."""
        if self._limits.options.limit is Switch.OFF:
            return False
        return self._own.fill() < 1 or self._shared.fill() < 1

    @property
    def is_full(self) -> bool:
        """So that nothing is forgotten with it."""
        return self._own.is_full

    def take(self) -> None:
        """One line is written."""
        self._own.take()
        self._shared.take()

    def leave_out(self) -> None:
        """Counts a line that is not written."""
        self._limits.leave_out(self.source)


class LineLimits:
    """The allowances of all sources. One thread calls this."""

    def __init__(self, options: LogLike, clock: Callable[[], float] = time.monotonic) -> None:
        self.options = options
        """May be another one from now on."""
        self.clock = clock
        self.left_out = 0
        """Lines that were not written, since the start."""
        self._allowances: OrderedDict[Hashable, Allowance] = OrderedDict()
        self._others: dict[Source, Allowance] = {}
        self._shared: dict[tuple[str, str | None], _Bucket] = {}
        self._counts: dict[Source, int] = {}  # since the last report
        self._since = clock()
        self._reported = float("-inf")

    def of(self, key: Hashable, source: Callable[[], Source]) -> Allowance:
        """The allowance of whoever has this key. `source` is only called where that is new."""
        found = self._allowances.get(key)
        if found is not None:
            self._allowances.move_to_end(key)
            return found
        if len(self._allowances) >= _MOST:
            eldest = next(iter(self._allowances))
            if not self._allowances[eldest].is_full:  # nor is any other one that was used later
                return self._of_others(source())
            del self._allowances[eldest]
        made = self._allowances[key] = self._open(source())
        return made

    def _of_others(self, source: Source) -> Allowance:
        """All that come when there is no room share one for each reason: new ones must bring nothing."""
        shown = replace(source, process=None, cgroup=None)
        return self._others.setdefault(shown, self._open(shown))

    def _open(self, source: Source) -> Allowance:
        shared = (source.event, source.scope)
        if shared not in self._shared:
            self._shared[shared] = _Bucket(self, _OF_A_SCOPE)
        return Allowance(self, source, _Bucket(self, 1), self._shared[shared])

    def leave_out(self, source: Source) -> None:
        """Counts a line that is not written, for the next report."""
        self.left_out += 1
        if source not in self._counts and len(self._counts) >= _MOST:
            source = replace(source, process=None, cgroup=None)
        if not self._counts:
            self._since = self.clock()
        self._counts[source] = self._counts.get(source, 0) + 1

    def report(self, at_once: bool = False) -> list[dict[str, Any]]:
        """Lines about what was left out, if there is any and it is time or `at_once`."""
        now = self.clock()
        if not self._counts or (now < self._reported + self.options.report_seconds and not at_once):
            return []
        seconds = max(1, round(now - self._since))
        counts = sorted(self._counts.items(), key=lambda item: -item[1])
        self._counts = {}
        self._reported = now
        lines = [_line(source, count, seconds) for source, count in counts[:_MOST_REPORTED]]
        if rest := counts[_MOST_REPORTED:]:
            lines.append(_line_of_others(rest, seconds))
        return lines


def _line(source: Source, count: int, seconds: int) -> dict[str, Any]:
    known = {"process": source.process, "cgroup": source.cgroup, "scope": source.scope}
    return {
        "event": "suppressed",
        "suppressed": source.event,
        "reason": source.reason,
        **{key: value for key, value in known.items() if value is not None},
        "count": count,
        "seconds": seconds,
        "explanation": (
            f"{count} more within {seconds} s have no line of their own: {source.event} as {source.reason} "
            f"{source}"
        ),
    }


def _line_of_others(rest: list[tuple[Source, int]], seconds: int) -> dict[str, Any]:
    reasons: dict[str, int] = {}
    for source, count in rest:
        reasons[source.reason] = reasons.get(source.reason, 0) + count
    total = sum(reasons.values())
    return {
        "event": "suppressed",
        "reasons": reasons,
        "sources": len(rest),
        "count": total,
        "seconds": seconds,
        "explanation": (
            f"{total} more within {seconds} s have no line of their own: of {len(rest)} other sources"
        ),
    }

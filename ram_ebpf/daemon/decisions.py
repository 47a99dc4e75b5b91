"""Decisions by reason and verdict. The kernel counts reasons alone; the verdict follows from the mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from ram_ebpf.dataplane.abi import Mode, Reason, Verdict
from ram_ebpf.metrics.sample import Sample


def verdict_of(reason: Reason, mode: Mode) -> Verdict:
    """As ram_verdict_for() in bpf/lib/verdict.h."""
    if not reason.is_decision:
        return Verdict.NONE
    if not reason.is_denied:
        return Verdict.ALLOW
    return Verdict.WOULD_DENY if mode is Mode.AUDIT else Verdict.DENY


class Decisions:
    """Knows what was counted in earlier modes, as the kernel goes on counting from one policy to the next."""

    def __init__(self) -> None:
        self._earlier: Counter[tuple[Reason, Verdict]] = Counter()
        self._before: Mapping[Reason, int] = {}

    def end_mode(self, mode: Mode, counters: Mapping[Reason, int]) -> None:
        """The mode was this one until now. `counters`: those of the kernel."""
        for reason, count in counters.items():
            self._earlier[reason, verdict_of(reason, mode)] += count - self._before.get(reason, 0)
        self._before = dict(counters)

    def samples(self, mode: Mode, counters: Mapping[Reason, int]) -> Iterator[Sample]:
        """All reasons with the verdict of this mode, and those of others that were given before."""
        found = dict(self._earlier)
        for reason in Reason:
            verdict = verdict_of(reason, mode)
            more = counters.get(reason, 0) - self._before.get(reason, 0)
            found[reason, verdict] = found.get((reason, verdict), 0) + more
        for (reason, verdict), count in sorted(found.items()):
            if verdict is not Verdict.NONE:
                labels = reason.slug, verdict.name.lower().replace("_", "-")
                yield Sample("ram_ebpf_decisions_total", count, labels)
            elif reason is not Reason.NONE:
                yield Sample("ram_ebpf_dns_messages_total", count, (reason.slug,))

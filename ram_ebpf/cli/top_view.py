"""What `ram-ebpf top` shows, as lines: pure, for a screen of any size or for none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ram_ebpf.cli.printing import one_cell_each
from ram_ebpf.endpoint import endpoint_text

Answers = Sequence[dict[str, Any]]
_LEAST_HOSTS = 3

SORTS: dict[str, tuple[str, Callable[[Row], Any]]] = {
    "r": ("rate", lambda row: (-row.rate, -row.count, row.host)),
    "c": ("count", lambda row: (-row.count, row.host)),
    "l": ("last", lambda row: (-row.last, row.host)),
    "n": ("name", lambda row: (row.host, row.port)),
}
"""By key: what refused hosts are sorted by."""


@dataclass(frozen=True)
class Row:
    """One host, port, reason and scope that was refused."""

    host: str
    port: int
    reason: str
    scope: str
    process: str
    last: int
    count: int
    rate: float
    """A second."""


@dataclass(frozen=True)
class Frame:
    """One moment. Rates are a second, since the moment before."""

    title: str
    audits: bool
    reasons: tuple[tuple[str, float, int], ...] = ()
    """Reason, rate and total; what is refused first, and the most frequent."""
    rows: tuple[Row, ...] = ()
    scopes: tuple[dict[str, Any], ...] = ()
    expiring: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()

    def verdicts(self) -> dict[str, tuple[float, int]]:
        """Rate and total, by verdict."""
        refusing = "would-deny" if self.audits else "deny"
        found = {"allow": (0.0, 0), refusing: (0.0, 0), "dns": (0.0, 0)}
        for reason, rate, total in self.reasons:
            kind = kind_of(reason)
            name = refusing if kind == "deny" else kind
            found[name] = (found[name][0] + rate, found[name][1] + total)
        return found

    def to_json(self) -> dict[str, Any]:
        """By the schema in docs/audit.md."""
        return {
            "title": self.title,
            "verdicts": {
                name: {"rate": round(rate, 1), "total": total}
                for name, (rate, total) in self.verdicts().items()
            },
            "reasons": {name: {"rate": round(rate, 1), "total": total} for name, rate, total in self.reasons},
            "refused": [
                {
                    "host": row.host,
                    "port": row.port,
                    "reason": row.reason,
                    "scope": row.scope,
                    "process": row.process or None,
                    "last": row.last,
                    "count": row.count,
                    "rate": round(row.rate, 1),
                }
                for row in self.rows
            ],
            "scopes": list(self.scopes),
            "expiring": list(self.expiring),
            "problems": list(self.problems),
        }


def kind_of(reason: str) -> str:
    """`allow`, `deny` or `dns`, of a reason as it is counted."""
    if reason.startswith("allowed-"):
        return "allow"
    return "deny" if reason.startswith("denied-") or reason == "name-mismatch" else "dns"


@dataclass
class Watch:
    """Makes frames from the answers of instances, one after the other."""

    _before: float | None = None
    _counters: dict[tuple[int, str], int] = field(default_factory=dict)
    _counts: dict[tuple[Any, ...], int] = field(default_factory=dict)

    def frame(self, answers: Answers, now: float) -> Frame:
        """`now`: seconds of a clock that only goes forward. The first frame has no rates."""
        seconds = None if self._before is None else max(now - self._before, 0.001)
        self._before = now
        good = [answer for answer in answers if "error" not in answer]
        counters, counts = self._counters, self._counts
        self._counters, self._counts = {}, {}
        reasons: dict[str, tuple[float, int]] = {}
        rows = []
        for answer in good:
            instance = answer["instance"]
            for name, total in answer["counters"].items():
                self._counters[instance, name] = total
                # What was never counted is not there.
                before = counters.get((instance, name), 0)
                rate = 0.0 if seconds is None else max(total - before, 0) / seconds
                known = reasons.get(name, (0.0, 0))
                reasons[name] = (known[0] + rate, known[1] + total)
            for entry in answer["refused"]:
                rows.append(self._row(instance, entry, counts, seconds))
        order = {"deny": 0, "allow": 1, "dns": 2}
        return Frame(
            title=_title(good),
            audits=bool(good) and all(answer["mode"] == "audit" for answer in good),
            reasons=tuple(
                sorted(
                    ((name, rate, total) for name, (rate, total) in reasons.items()),
                    key=lambda its: (order[kind_of(its[0])], -its[1], -its[2], its[0]),
                )
            ),
            rows=tuple(rows),
            scopes=tuple(scope for answer in good for scope in answer["scopes"]),
            expiring=tuple(
                sorted((its for answer in good for its in answer["expiring"]), key=lambda its: its["seconds"])
            ),
            problems=tuple(f"pid {its['instance']}: {its['error']}" for its in answers if "error" in its),
        )

    def _row(
        self, instance: int, entry: dict[str, Any], counts: dict[tuple[Any, ...], int], seconds: float | None
    ) -> Row:
        host, port = entry.get("host") or entry.get("address", "?"), entry.get("port", 0)
        key = (instance, host, port, entry.get("protocol"), entry["reason"], entry.get("scope"))
        count = entry["count"]
        self._counts[key] = count
        rate = 0.0 if seconds is None else max(count - counts.get(key, 0), 0) / seconds
        if seconds is not None and key not in counts and entry["first"] != entry["last"]:
            rate = 0.0  # it was among those that were not told
        return Row(
            host,
            port,
            entry["reason"],
            entry.get("scope", ""),
            entry.get("process", ""),
            entry["last"],
            count,
            rate,
        )


def _title(answers: Answers) -> str:
    if not answers:
        return "no instance of ram-ebpf runs here"
    return "; ".join(
        f"ram-ebpf {its['version']} (pid {its['instance']}): {its['mode']}, {its['policy']}"
        for its in answers
    )


def lines(
    frame: Frame, width: int | None = None, height: int | None = None, sort: str = "r", paused: bool = False
) -> list[str]:
    """At most so many, of at most so many characters, each of them printable and one cell wide."""
    verdicts = "   ".join(
        f"{name} {rate:.1f}/s ({total})" for name, (rate, total) in frame.verdicts().items()
    )
    head = [frame.title, verdicts, *frame.problems]
    by, key = SORTS[sort]
    sections = [
        ("   /S      TOTAL  REASON", [f"{r:5.1f} {t:10}  {n}" for n, r, t in frame.reasons]),
        (
            f"   /S      COUNT  REFUSED, by {by}{'  (paused)' if paused else ''}",
            [_row_text(row) for row in sorted(frame.rows, key=key)],
        ),
        (" PLACES   LEARNED  SCOPE", [_scope_text(scope) for scope in frame.scopes]),
        ("SECONDS  EXPIRES NEXT", [_expiring_text(its) for its in frame.expiring]),
    ]
    found = head
    if height is None:
        for title, body in sections:
            found += [title, *(body or ["(none)"])]
    else:
        room = _rooms([len(body) for _, body in sections], height - len(head) - len(sections))
        for (title, body), rows in zip(sections, room, strict=True):
            found += [title, *body[:rows]]
        found = found[:height]
    return [one_cell_each(line)[:width] for line in found]


def _rooms(wanted: list[int], height: int) -> list[int]:
    """Lines for the bodies of reasons, hosts, scopes and addresses: hosts have what the others leave."""
    room = [0] * len(wanted)
    left = max(height, 0)
    for index, most in (
        (1, _LEAST_HOSTS),
        (0, 5),
        (2, 3),
        (3, 4),
        (1, left),
        (0, left),
        (3, left),
        (2, left),
    ):
        more = min(max(min(wanted[index], most) - room[index], 0), left)
        room[index] += more
        left -= more
    return room


def _row_text(row: Row) -> str:
    host = endpoint_text(row.host, row.port)
    when = time.strftime("%H:%M:%S", time.localtime(row.last))
    who = f" by {row.process}" if row.process else ""
    return f"{row.rate:5.1f} {row.count:10}  {host} {when} {row.reason}{who} in {row.scope or 'no scope'}"


def _scope_text(scope: dict[str, Any]) -> str:
    learned = f"{scope['learned']}{'+' if scope['more'] else ''}"
    return f"{scope['places']:7} {learned:>9}  {scope['scope']} ({scope['posture']})"


def _expiring_text(its: dict[str, Any]) -> str:
    name = its["name"] or its["rule"]
    return f"{its['seconds']:7.0f}  {its['address']} {name} in {its['scope']}"


def plain_blocks(frame: Frame, sort: str) -> Iterator[str]:
    """For what is no terminal: all lines, and an empty one behind them."""
    yield from lines(frame, sort=sort)
    yield ""

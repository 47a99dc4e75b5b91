"""From events of the kernel to lines of the log, as JSON or for people."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TextIO

from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.journal import Journal
from ram_ebpf.daemon.reasons import explain
from ram_ebpf.dataplane.abi import Reason, Verdict
from ram_ebpf.dataplane.events import Event
from ram_ebpf.dataplane.tables import Rule, Tables
from ram_ebpf.dns.response import Answer, question_name
from ram_ebpf.endpoint import endpoint_text
from ram_ebpf.printable import printable

_TCP = 6
_PROTOCOLS = {_TCP: "tcp", 17: "udp", 1: "icmp", 58: "icmpv6"}
REFUSING = frozenset({Verdict.DENY, Verdict.WOULD_DENY})
_VERDICT_EVENTS = {Verdict.ALLOW: "allowed", Verdict.DENY: "denied", Verdict.WOULD_DENY: "would-deny"}
NOT_UNDERSTOOD = frozenset(
    {
        Reason.DNS_TRUNCATED,
        Reason.DNS_MALFORMED,
        Reason.DNS_TOO_MANY,
        Reason.DNS_MAP_FULL,
        Reason.DNS_LATE,
        Reason.DNS_OTHER_NAME,
        Reason.DNS_PRIVATE_ADDRESS,
    }
)
_IGNORED_REPLY = frozenset(
    {
        Reason.DNS_NO_QUERY,
        Reason.DNS_WRONG_QUESTION,
        Reason.DNS_WRONG_INTERFACE,
        Reason.DNS_UNTRUSTED_SENDER,
    }
)


def event_name(event: Event) -> str:
    """The kind of line that an event becomes."""
    if event.verdict is not Verdict.NONE:
        return _VERDICT_EVENTS[event.verdict]
    if event.reason is Reason.DNS_LEARNED:
        return "learned"
    if event.reason is Reason.DNS_RECOGNISED:
        return "recognised"
    if event.reason in NOT_UNDERSTOOD:
        return "not-understood"
    if event.reason in _IGNORED_REPLY:
        return "ignored-reply"
    return "dns"


def rule_text(rule: Rule | None) -> str:
    """A rule as the administrator knows it."""
    return "" if rule is None else str(rule)


@dataclass
class Describer:
    """Adds to an event what only user space knows: names, rules, cgroup paths, the policy's message."""

    tables_of: Callable[[int], Tables]
    """By the number of a scope."""
    history: NameHistory
    cgroup_path: Callable[[int], str | None]
    message: str | None = None
    scope_label: Callable[[int], str | None] = lambda number: None

    def describe(self, event: Event, answer: Answer | None) -> dict[str, Any]:
        """The line of an event, without what is not known."""
        name = event_name(event)
        about_dns = event.verdict is Verdict.NONE
        host = self.history.name_of(event.address)
        if about_dns or event.dns_message:
            host = self.asked_name(event, answer)
        name_sent = event.beginning.name if event.beginning is not None else None
        tables = self.tables_of(event.scope)
        rule = rule_text(tables.rule(event.rule))
        listed = tables.rules.match(host) if host is not None else None
        record: dict[str, Any] = {
            "event": name,
            "verdict": event.verdict.name.lower().replace("_", "-") if not about_dns else None,
            "reason": event.reason.slug,
            "host": host,
            "name": name_sent,
            "address": str(event.address),
            "port": event.port,
            "protocol": _PROTOCOLS.get(event.protocol, str(event.protocol)),
            "process": event.process,
            "pid": event.pid,
            "uid": event.uid,
            "cgroup": self.cgroup_path(event.cgroup_id) if event.cgroup_id else None,
            "scope": self.scope_label(event.scope),
            "rule": rule or None,
            "explanation": explain(
                event.reason,
                host=host or str(event.address),
                port=event.port,
                rule=rule,
                name=name_sent,
                not_listed=host is not None and (listed is None or listed.deny),
                denied_by=(
                    rule_text(listed) if listed is not None and listed.deny and not listed.known else None
                ),
            ),
        }
        if event.verdict in REFUSING and host is not None and listed is None:
            record.update(self._hint(host, tables))
        if about_dns:
            record["resolver"] = f"{record.pop('address')}#{record.pop('port')}"
            if answer is not None and answer.addresses:
                record["addresses"] = [str(address) for address, _ in answer.addresses]
        elif event.verdict is not Verdict.ALLOW and self.message:
            record["message"] = self.message
        return {key: value for key, value in record.items() if value is not None}

    def _hint(self, host: str, tables: Tables) -> dict[str, str]:
        """Hosts of blobs move most often: then an allowed name was looked up just before."""
        for seconds, name in self.history.before(host):
            rule = tables.rules.match(name)
            if rule is not None and not rule.deny:
                hint = (
                    f"{host} was looked up {seconds:.0f} s after {name}, which {rule_text(rule)} allows: "
                    "it may be where that registry keeps its blobs now; if so, add it there under `also`"
                )
                return {"hint": hint, "after": name, "after_rule": rule.pattern.text}
        return {}

    @staticmethod
    def asked_name(event: Event, answer: Answer | None) -> str | None:
        """The name that an event about DNS is about."""
        if answer is not None:
            return answer.name
        if not event.dns_message:
            return None
        # Over TCP a length goes before the message (RFC 1035 4.2.2).
        return question_name(event.dns_message[2 if event.protocol == _TCP else 0 :])


def human_line(record: dict[str, Any]) -> str:
    """One line for a person's eyes."""
    words = [str(record["event"]).upper()]
    address = record.get("address")
    if address is not None:
        shown = endpoint_text(address, record["port"])
        host = record.get("host")
        words.append(f"{host} ({shown})" if host else shown)
        words.append(record["protocol"])
    elif record.get("host"):
        words.append(str(record["host"]))
    if record.get("method"):
        about = record.get("image") or record.get("registry")
        if about:
            words.append(f"{record['action']} {about}")
        words.append(f"by {record.get('user') or 'a client'} of Docker ({record['method']} {record['path']})")
    if record.get("addresses"):
        words.append(" ".join(record["addresses"]))
    if record.get("pid"):
        words.append(f"by {record.get('process', '?')}[{record['pid']}]")
    elif record.get("process"):
        words.append(f"by {record['process']}")
    if record.get("cgroup"):
        words.append(f"in {record['cgroup']}")
    line = " ".join(words)
    if record.get("explanation"):
        line += f": {record['explanation']}"
    if record.get("hint"):
        line += f" ({record['hint']})"
    if record.get("repeated"):
        line += f" ({record['repeated']} more like this before)"
    if record.get("message"):
        line += f". {record['message']}"
    return line


class RecordWriter:
    """Writes lines, each at once; a log that cannot be written is not a reason to stop enforcing."""

    def __init__(self, as_json: bool, stream: TextIO | None = None, journal: Journal | None = None) -> None:
        """`journal`: where the stream leads to, if it is one; it is then told the fields as well."""
        self._json = as_json
        self._stream = stream or sys.stdout
        self._journal = journal
        self.note: Callable[[dict[str, Any]], None] = lambda record: None
        """Is called with each line's record, which has its time then."""

    def write(self, record: dict[str, Any]) -> None:
        """One record, with the time of now (UTC, RFC 3339)."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        timed = {"time": now, **record}
        self.note(timed)
        text = json.dumps(timed) if self._json else printable(human_line(record))
        if self._journal is not None and self._journal.send(record, text):
            return
        if not self._json:
            text = f"{now} {text}"
        # A stream of another encoding must lose no line: what it cannot hold is written as its number.
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text + "\n")
            self._stream.flush()

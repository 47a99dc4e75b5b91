"""A line of the log as plain fields, for receivers that know nothing but text; and how much it matters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ram_ebpf.printable import printable

# Of syslog(3).
_WARNING, _NOTICE, _INFO, _DEBUG = 4, 5, 6, 7
_PRIORITIES = {
    "denied": _WARNING,
    "suppressed": _WARNING,
    "events-lost": _WARNING,
    "queue-full": _WARNING,
    "export-lost": _WARNING,
    "no-export": _WARNING,
    "would-deny": _NOTICE,
    "registry-found": _NOTICE,
    "reload-failed": _WARNING,
    "policy-not-kept": _WARNING,
    "unpinned": _WARNING,
    "no-control": _WARNING,
    "no-control-group": _WARNING,
    "no-responder": _WARNING,
    "no-plugin": _WARNING,
    "no-authority": _WARNING,
    "scope-failed": _WARNING,
    "resolver-sockets-full": _WARNING,
    "scope-gone": _NOTICE,
    "learned": _DEBUG,
    "dns": _DEBUG,
}


def priority_of(event: str) -> int:
    """Of syslog(3), from 4, a warning, to 7."""
    return _PRIORITIES.get(event, _INFO)


def fields_of(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, each of which is one printable line. A list is the same name several times."""
    for key, value in record.items():
        for item in value if isinstance(value, list | tuple) else (value,):
            yield key, printable(json.dumps(item) if isinstance(item, dict | bool) else str(item))

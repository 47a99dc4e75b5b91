"""Which of the refusals are meant: the filters of `ram-ebpf events`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

Record = dict[str, Any]


@dataclass(frozen=True)
class Filter:
    """Patterns as of a shell (`*`, `?`, `[...]`), by what they are about; any of one kind, and each kind."""

    hosts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()

    @classmethod
    def of(cls, args: argparse.Namespace) -> Filter:
        """As the options say, which add_options() has added."""
        return cls(tuple(args.name), tuple(args.reason), tuple(args.of_scope), tuple(args.process))

    def matches(self, record: Record) -> bool:
        """Whether a refusal is meant, by the keys that it has in the log."""
        return all(
            not patterns or any(_is_like(value, pattern) for value in found(record) for pattern in patterns)
            for patterns, found in (
                (self.hosts, _names),
                (self.reasons, _values("reason")),
                (self.scopes, _values("scope")),
                (self.processes, _values("process")),
            )
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds those from which Filter.of() makes one."""
    pattern: dict[str, Any] = {"metavar": "PATTERN", "action": "append", "default": []}
    parser.add_argument("--name", help="of this name or address, as *.example.com; repeatable", **pattern)
    parser.add_argument("--reason", help="for this reason, as name-mismatch; repeatable", **pattern)
    parser.add_argument("--scope", dest="of_scope", help="in this scope; repeatable", **pattern)
    parser.add_argument("--process", help="of this program; repeatable", **pattern)


def _names(record: Record) -> list[str]:
    """All by which somebody may look for it: looked up, on the wire, of the image, or the address."""
    return [str(record[key]).lower() for key in ("host", "name", "registry", "address") if record.get(key)]


def _values(key: str) -> Callable[[Record], list[str]]:
    return lambda record: [str(record[key])] if record.get(key) is not None else []


def _is_like(value: str, pattern: str) -> bool:
    return fnmatchcase(value.lower(), pattern.lower())

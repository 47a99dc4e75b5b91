"""From YAML text to plain data with line numbers, in one pass over the parser's events.

Building from events rather than from composed nodes means that aliases, depth and tags are refused
before anything is built from them, that no recursion is involved, and that a key given twice is still
seen. Scalars follow the core schema of YAML 1.2 (section 10.3), so `no` and `1:30` are text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from ram_ebpf.policy.encoding import decode
from ram_ebpf.policy.errors import PolicyError, PolicyErrors
from ram_ebpf.policy.words import show

MAX_DEPTH = 20
MAX_RULES = 200_000
"""Of the whole policy; while reading, also of any one list, so that memory is bounded too."""

PathPart: TypeAlias = str | int
# The pure Python parser gives the same events, some ten times slower.
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
# No leading zeros, as YAML 1.1 reads 0443 in octal and 1.2 does not; no more digits than make sense.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")


@dataclass(slots=True)
class Place:
    """The line (from 1) of a list or mapping, and those of what is in it; a scalar's is a bare number."""

    line: int
    inside: dict[str, Place | int] | list[Place | int]

    def part(self, part: PathPart) -> Place | int | None:
        """Where the value of a key, or the item at an index, stands."""
        if isinstance(self.inside, dict):
            return self.inside.get(part) if isinstance(part, str) else None
        return self.inside[part] if isinstance(part, int) and part < len(self.inside) else None


@dataclass(frozen=True, slots=True)
class Document:
    """`data` is made of str, int, float, bool, None, list and dict with str keys; `errors` are those that
    did not stop the reading."""

    data: Any
    place: Place | int
    errors: list[PolicyError]

    def locate(self, path: tuple[PathPart, ...]) -> tuple[int, tuple[PathPart, ...]]:
        """The line of the deepest existing part of `path`, and that part."""
        place = self.place
        for depth, part in enumerate(path):
            found = place.part(part) if isinstance(place, Place) else None
            if found is None:
                return _line(place), path[:depth]
            place = found
        return _line(place), path

    def error(self, file: str, path: tuple[PathPart, ...], problem: str, cure: str) -> PolicyError:
        """An error at `path`."""
        line, found = self.locate(path)
        return PolicyError(file, line, path_text(found), problem, cure)


def path_text(path: tuple[PathPart, ...]) -> str:
    """`registries[3].ports[0]`."""
    parts = (
        f"[{part}]" if isinstance(part, int) else "." + (part if _PLAIN_KEY.fullmatch(part) else show(part))
        for part in path
    )
    return "".join(parts).removeprefix(".")


def read_document(data: bytes, file: str) -> Document:
    """The one YAML document in `data`. Raises PolicyErrors with what stops the reading."""
    text = decode(data, file)
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise PolicyErrors([_syntax_error(error, text, file)]) from None
    except yaml.YAMLError as error:  # the reader's; decode() leaves it nothing to find
        raise PolicyErrors([PolicyError(file, 0, "", f"this is not YAML ({error})", "correct it")]) from None
    if builder.root is None:
        what = "has only comments" if text.strip() else "is empty"
        raise PolicyErrors(
            [PolicyError(file, 0, "", f"the file {what}", "write at least version: 1 and registries:")]
        )
    return Document(builder.root[0], builder.root[1], builder.errors)


@dataclass(slots=True)
class _Frame:
    """A list or mapping under construction."""

    value: Any
    place: Place
    name: PathPart  # its key or index in what it is in
    key: str | None = None  # of the mapping's pair whose value comes next
    key_line: int = 0
    repeated: bool = False  # that key was there before: its value is read and dropped


@dataclass(slots=True)
class _Builder:
    file: str
    root: tuple[Any, Place | int] | None = None
    errors: list[PolicyError] = field(default_factory=list)
    _stack: list[_Frame] = field(default_factory=list)
    _documents: int = 0

    def take(self, event: Any) -> None:
        kind = type(event)
        if kind is ScalarEvent:
            self._check(event)
            frame = self._stack[-1] if self._stack else None
            if frame is not None and frame.key is None and type(frame.value) is dict:
                self._set_key(frame, event)
            else:
                self._add(_scalar(event), event.start_mark.line + 1)
        elif kind is MappingStartEvent:
            self._open({}, {}, event)
        elif kind is SequenceStartEvent:
            self._open([], [], event)
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            self._stack.pop()
        elif kind is AliasEvent:
            self._stop(
                event,
                f"*{event.anchor[:60]} is a YAML alias, and aliases are not read",
                "write the value out, or put a pattern that starts with * in quotes",
            )
        elif kind is DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                self._stop(event, "a second YAML document starts here", "keep one, and remove the ---")

    def _check(self, event: Any) -> None:
        if event.anchor is not None:
            self._stop(
                event,
                f"&{event.anchor[:60]} is a YAML anchor, and anchors are not read",
                "write the value out",
            )
        if event.tag is not None:
            self._stop(
                event, f"{show(event.tag)} is a YAML tag, and tags are not read", "write the value alone"
            )

    def _open(self, value: Any, inside: Any, event: Any) -> None:
        self._check(event)
        if len(self._stack) >= MAX_DEPTH:
            self._stop(
                event, f"lists and mappings nest deeper than {MAX_DEPTH}", "a policy needs no more than 5"
            )
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and type(frame.value) is dict:
            self._stop(event, "a list or a mapping stands where a key belongs", "write a word and a colon")
        place = Place(event.start_mark.line + 1, inside)
        name = self._name_of_next()
        self._add(value, place)
        self._stack.append(_Frame(value, place, name))

    def _set_key(self, frame: _Frame, event: Any) -> None:
        frame.key = key = event.value
        frame.key_line = event.start_mark.line + 1
        frame.repeated = key in frame.value
        if frame.repeated:
            inside = frame.place.inside
            assert isinstance(inside, dict)
            self.errors.append(
                PolicyError(
                    self.file,
                    frame.key_line,
                    path_text((*self._path(), key)),
                    f"this key is already on line {_line(inside[key])}",
                    "keep one of them",
                )
            )

    def _add(self, value: Any, place: Place | int) -> None:
        if not self._stack:
            self.root = (value, place)
            return
        frame = self._stack[-1]
        inside = frame.place.inside
        if isinstance(inside, list):
            if len(inside) >= MAX_RULES:
                raise PolicyErrors([_too_many(self.file, frame.place.line, path_text(self._path()))])
            frame.value.append(value)
            inside.append(place)
            return
        assert frame.key is not None
        if isinstance(place, Place):
            place.line = frame.key_line  # "the list is empty" belongs to the line that names the list
        if not frame.repeated:
            frame.value[frame.key] = value
            inside[frame.key] = place if isinstance(place, Place) else frame.key_line
        frame.key = None

    def _name_of_next(self) -> PathPart:
        frame = self._stack[-1] if self._stack else None
        if frame is None:
            return ""
        return len(frame.value) if frame.key is None else frame.key

    def _path(self) -> tuple[PathPart, ...]:
        return tuple(frame.name for frame in self._stack[1:])

    def _stop(self, event: Any, problem: str, cure: str) -> None:
        raise PolicyErrors([PolicyError(self.file, event.start_mark.line + 1, "", problem, cure)])


def _too_many(file: str, line: int, where: str) -> PolicyError:
    return PolicyError(
        file, line, where, f"the list has more than {MAX_RULES} items", "use wildcards, or split the policy"
    )


def _line(place: Place | int) -> int:
    return place.line if isinstance(place, Place) else place


def _scalar(event: Any) -> str | int | float | bool | None:
    text: str = event.value
    if not event.implicit[0]:  # quoted, or a block scalar
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _syntax_error(error: yaml.MarkedYAMLError, text: str, file: str) -> PolicyError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 0
    if "alias" in (error.context or ""):
        start = error.context_mark.line + 1 if error.context_mark else line
        return PolicyError(
            file,
            start,
            "",
            "a * that is not in quotes starts a YAML alias",
            'put the pattern in quotes, as in "*.example.com"',
        )
    if mark and _at(text, mark) == "\t":
        return PolicyError(file, line, "", "a tab stands where YAML wants spaces", "use spaces")
    return PolicyError(
        file,
        line,
        "",
        f"this is not valid YAML ({error.problem})",
        "look at the indentation, the quotes and the colons up to here",
    )


def _at(text: str, mark: yaml.Mark) -> str:
    lines = text.split("\n", mark.line + 1)
    return lines[mark.line][mark.column : mark.column + 1] if mark.line < len(lines) else ""

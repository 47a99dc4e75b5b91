"""Host patterns: what an administrator writes to name hosts, and the reference way to match them.

Terms: a *label* is one dot-separated part of a name (RFC 1035, section 2.3.1); an *A-label* is the
ASCII form of an internationalised one (RFC 5890, section 2.3.2.1). Lengths are in octets of the
presentation form: 63 for a label, 253 for a name (RFC 1035, section 2.3.4).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum

import idna

from ram_ebpf.policy.notation import refuse_other_notation
from ram_ebpf.policy.pattern_error import PatternError
from ram_ebpf.policy.words import show

__all__ = ["MAX_LABEL", "MAX_NAME", "HostPattern", "PatternError", "PatternKind", "normalise"]

MAX_LABEL = 63
MAX_NAME = 253

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_PLAIN = re.compile(rf"(?P<wildcard>\*\*?\.)?{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_PATTERN_LABEL = re.compile(r"[a-z0-9_*-]+")
_IDNA_DOTS = re.compile("[.\u3002\uff0e\uff61]")  # UTS 46, section 4: all of them separate labels


class PatternKind(Enum):
    """How much work it is to find a pattern: one look-up, one per label, or an automaton."""

    EXACT = "exact"  # no wildcard
    ONE = "one"  # `*` and a literal rest
    DEEP = "deep"  # `**` and a literal rest
    GLOB = "glob"  # anything else


_KIND_OF_WILDCARD = {None: PatternKind.EXACT, "*.": PatternKind.ONE, "**.": PatternKind.DEEP}


@dataclass(frozen=True, slots=True)
class HostPattern:
    """One host pattern in canonical form: lower case, A-labels, no trailing dot.

    Make one with `parse`; the constructor checks nothing. Two patterns are equal when their texts are.
    """

    text: str
    labels: tuple[str, ...] = field(compare=False, repr=False)
    """Left to right; `*` and `**` are labels of their own."""
    kind: PatternKind = field(compare=False)

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """The pattern that `text` writes.

        `*` is exactly one label, a leading `**` one or more, and `*` inside a label any number of
        that label's characters, none included. Raises PatternError, which says what to write instead.
        """
        # Nearly every rule of a long policy is a plain name, perhaps with a wildcard in front: that must be
        # quick.
        name = text[:-1] if text.endswith(".") else text
        if name.isascii() and len(name) <= MAX_NAME:
            lower = name.lower()
            plain = _PLAIN.fullmatch(lower)
            if plain and not lower.lstrip("*").replace(".", "").isdigit():
                return cls(lower, tuple(lower.split(".")), _KIND_OF_WILDCARD[plain["wildcard"]])
        return cls._parse_slowly(text, name)

    @classmethod
    def _parse_slowly(cls, text: str, name: str) -> HostPattern:
        refuse_other_notation(text)
        if len(name) > MAX_NAME:
            raise PatternError(
                f"{show(text)} is {len(name)} characters long",
                f"a host name has at most {MAX_NAME}",
            )
        labels = tuple(_canonical_label(label, text) for label in _IDNA_DOTS.split(name))
        canonical = ".".join(labels)
        if len(canonical) > MAX_NAME:
            raise PatternError(
                f"{show(text)} is {len(canonical)} characters long as A-labels",
                f"a host name has at most {MAX_NAME}",
            )
        if canonical != text:
            refuse_other_notation(canonical)  # full-width digits become an address only now
        _check_wildcards(labels, text)
        return cls(canonical, labels, _kind(labels))

    @property
    def suffix(self) -> str:
        """For ONE and DEEP the literal rest after the wildcard, for EXACT the name, for GLOB empty."""
        if self.kind is PatternKind.GLOB:
            return ""
        if self.kind is PatternKind.EXACT:
            return self.text
        return ".".join(self.labels[1:])

    @property
    def specificity(self) -> tuple[int, ...]:
        """A tuple that compares greater for the pattern that says more about the name.

        In this order: an exact name beats any wildcard; more literal labels counted from the right
        until the first wildcard; `*` and in-label globs over `**`; more literal characters; more
        labels. Patterns that come out equal are told apart by their place in the policy: the later wins.
        """
        if self.kind is PatternKind.EXACT:
            count = len(self.labels)
            return (1, count, 1, len(self.text) - count + 1, count)
        literal = 0
        for label in reversed(self.labels):
            if "*" in label:
                break
            literal += 1
        characters = sum(len(label) - label.count("*") for label in self.labels)
        return (
            0,
            literal,
            int(self.labels[0] != "**"),
            characters,
            len(self.labels),
        )

    def matches(self, name: str) -> bool:
        """Whether `name`, a presentation name in any case with or without a trailing dot, matches.

        The reference that the kernel's matching is tested against. A name that is no host name (empty
        label, too long, or a character outside a-z 0-9 - _) matches nothing.
        """
        canonical = normalise(name)
        return canonical is not None and self.matches_labels(canonical.split("."))

    def matches_labels(self, labels: list[str]) -> bool:
        """As `matches`, for the labels of an already normalised name."""
        globs = self.labels
        if globs[0] == "**":
            globs = globs[1:]
            if len(labels) <= len(globs):
                return False
            labels = labels[-len(globs) :]
        return len(labels) == len(globs) and all(map(_label_matches, globs, labels))

    def __str__(self) -> str:
        return self.text


def normalise(name: str) -> str | None:
    """`name` in lower case without its trailing dot, or None when it is no host name."""
    # Test before folding: str.lower() turns some other characters into ASCII (U+212A into k).
    if not _NAME.fullmatch(name):
        return None
    name = name.removesuffix(".").lower()
    return name if len(name) <= MAX_NAME else None


def _canonical_label(label: str, text: str) -> str:
    if not label:
        raise PatternError(
            f"{show(text)} has an empty label",
            "remove the extra dot" if ".." in text else "write *.example.com for the names below example.com",
        )
    if not label.isascii():
        label = _a_label(label, text)
    label = label.lower()
    if not _PATTERN_LABEL.fullmatch(label):
        bad = next(character for character in label if not _PATTERN_LABEL.fullmatch(character))
        raise PatternError(
            f"{show(text)} has the character {show(bad)}",
            "a host name is made of letters, digits, '-', '_' and dots",
        )
    if len(label) > MAX_LABEL:
        raise PatternError(
            f"{show(text)} has a label of {len(label)} characters", f"a label has at most {MAX_LABEL}"
        )
    if label.startswith("-") and not label.startswith("-*"):
        raise PatternError(f"label {show(label)} starts with '-'", "remove the hyphen")
    if label.endswith("-") and not label.endswith("*-"):
        raise PatternError(f"label {show(label)} ends with '-'", "remove the hyphen")
    return label


def _a_label(label: str, text: str) -> str:
    if "*" in label:
        raise PatternError(
            f"{show(text)} has a wildcard inside the non-ASCII label {show(label)}",
            "write that label without a wildcard, or * for the whole label",
        )
    try:
        encoded = idna.encode(label, uts46=True, std3_rules=True, transitional=False).decode("ascii")
    except UnicodeError:
        encoded = ""
    # A mapping may yield a dot, which would make two labels out of one unseen.
    if not encoded or "." in encoded or "*" in encoded:
        raise PatternError(
            f"{show(label)} is not a valid internationalised label",
            "correct it, or write the A-label that starts with xn--",
        )
    return encoded


def _check_wildcards(labels: tuple[str, ...], text: str) -> None:
    for position, label in enumerate(labels):
        if "**" not in label:
            continue
        if label != "**":
            raise PatternError(
                f"{show(text)} has '**' inside a label",
                "write one * inside a label, or ** as a whole label at the left",
            )
        if position > 0:
            raise PatternError(
                f"{show(text)} has '**' to the right of another label",
                "write ** only as the leftmost label, and * for exactly one label elsewhere",
            )
    if "*" in labels[-1]:
        raise PatternError(
            f"{show(text)} ends in a wildcard",
            "write the last label out, as in *.example.com",
        )


def _kind(labels: tuple[str, ...]) -> PatternKind:
    if any("*" in label for label in labels[1:]):
        return PatternKind.GLOB
    if "*" not in labels[0]:
        return PatternKind.EXACT
    return {"*": PatternKind.ONE, "**": PatternKind.DEEP}.get(labels[0], PatternKind.GLOB)


def _label_matches(glob: str, label: str) -> bool:
    """Greedy wildcard match, going back to the last star only: never worse than the lengths' product."""
    if glob == "*" or glob == label:
        return True
    g = i = resume = 0
    star = -1
    while i < len(label):
        if g < len(glob) and glob[g] == label[i]:
            g, i = g + 1, i + 1
        elif g < len(glob) and glob[g] == "*":
            star, resume, g = g, i, g + 1
        elif star >= 0:
            resume += 1
            g, i = star + 1, resume
        else:
            return False
    return glob.count("*", g) == len(glob) - g

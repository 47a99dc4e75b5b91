"""One automaton for all glob patterns, read from right to left over character classes.

Right to left, because the literal part of a host pattern is its right end: names that no pattern can
match reach the dead state after a few characters. For each label from the last to the first the input
is its characters from last to first, then SEP; `a.bc` is read c, b, SEP, a, SEP.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from ram_ebpf.policy.classes import CLASS_COUNT, NAME_CLASSES, SEP, class_of
from ram_ebpf.policy.names import HostPattern, normalise

DEAD = 0
START = 1
NO_PATTERN = -1
MAX_SET_OCTETS = 64 * 1024 * 1024
"""For all sets of the construction together: no policy may exhaust the memory of its host."""
_REMEDY = "use fewer * inside labels or write those hosts exactly"


class AutomatonTooLarge(Exception):  # noqa: N818 - the name says what happened
    """The patterns together need more states than there is room for; str() says what to do."""


class State(NamedTuple):
    """One state: `next[class]` is a state number; `accept` is a pattern's integer, or -1."""

    next: tuple[int, ...]
    accept: int


@dataclass(frozen=True, slots=True)
class GlobAutomaton:
    """State 0 is the dead state, state 1 the start; without patterns there is only state 0."""

    states: list[State]

    def run(self, symbols: Iterable[int]) -> int:
        """The integer of the winning pattern after all `symbols` (classes), or -1."""
        state = START if len(self.states) > 1 else DEAD
        for symbol in symbols:
            state = self.states[state].next[symbol]
        return self.states[state].accept

    def match(self, name: str) -> int:
        """As `run`, for a presentation name; -1 also when it is no host name."""
        canonical = normalise(name)
        return NO_PATTERN if canonical is None else self.run(symbols_of(canonical))


def symbols_of(name: str) -> list[int]:
    """What the automaton reads for a normalised name."""
    symbols = []
    for label in reversed(name.split(".")):
        symbols += [class_of(byte) for byte in reversed(label.encode("ascii"))]
        symbols.append(SEP)
    return symbols


class _Positions:
    """All patterns, right to left, as positions of one nondeterministic automaton.

    A set of positions is an integer with a bit for each: hundreds of patterns that share a domain are in
    the same set, and such sets are small and quick this way.
    """

    def __init__(self, patterns: Iterable[HostPattern]) -> None:
        self._count = 0
        start: list[int] = []
        classes: list[list[int]] = [[] for _ in range(CLASS_COUNT)]
        any_: list[int] = []
        star: list[int] = []
        deep: list[int] = []
        self._pattern_at: dict[int, int] = {}  # accepting position -> index of the pattern
        for index, pattern in enumerate(patterns):
            start.append(self._count)
            for label in reversed(pattern.labels):
                if label in ("*", "**"):  # a label is never empty
                    any_.append(self._next())
                    star.append(self._next())
                else:
                    for character in reversed(label):
                        kind = star if character == "*" else classes[class_of(ord(character))]
                        kind.append(self._next())
                (deep if label == "**" else classes[SEP]).append(self._next())
            self._pattern_at[self._next()] = index
        self._classes = [self._set(one) for one in classes]  # one character of that class, or SEP
        self._any = self._set(any_)  # one character of a label, whichever
        self._star = self._set(star)  # any number of characters of a label, none included
        self._deep = self._set(deep)  # SEP, then either the end or one more whole label
        self._accept = self._set(self._pattern_at)
        self.start = self.closed(self._set(start))

    def after(self, positions: int) -> list[int]:
        """The sets of positions that each class leads to."""
        moved = (positions & self._star) | (positions & self._any) << 1
        following = [0] * CLASS_COUNT
        for symbol in NAME_CLASSES:
            following[symbol] = self.closed(moved | (positions & self._classes[symbol]) << 1)
        deep = positions & self._deep
        following[SEP] = self.closed((positions & self._classes[SEP]) << 1 | deep << 1 | deep >> 2)
        return following

    def closed(self, positions: int) -> int:
        """With what a star that matches nothing leads to. Two stars never follow each other."""
        return positions | (positions & self._star) << 1

    def accepting(self, positions: int) -> list[int]:
        """The indices of the patterns that accept here."""
        found = []
        rest = positions & self._accept
        while rest:
            highest = rest.bit_length() - 1
            found.append(self._pattern_at[highest])
            rest ^= 1 << highest
        return found

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def _set(self, positions: Iterable[int]) -> int:
        octets = bytearray(self._count // 8 + 1)  # bit by bit, an integer would be copied each time
        for position in positions:
            octets[position // 8] |= 1 << position % 8
        return int.from_bytes(octets, "little")


class _Subsets:
    """The subset construction: each state of the result is a set of positions."""

    def __init__(self, patterns: Sequence[tuple[HostPattern, int]], max_states: int) -> None:
        self._patterns = patterns
        self._max_states = max_states
        self._room = MAX_SET_OCTETS
        self._numbers: dict[int, int] = {0: DEAD}
        self._sets = [0]

    def build(self) -> list[State]:
        # Each pattern needs a state of its own where it wins, so this needs no construction.
        if len(self._patterns) > self._max_states:
            self._refuse()
        positions = _Positions(pattern for pattern, _ in self._patterns)
        if self._patterns:
            self._number(positions.start)
        # The winner of a state is the greatest of these among the patterns that accept there.
        order = [(pattern.specificity, index) for index, (pattern, _) in enumerate(self._patterns)]
        states: list[State] = []
        while len(states) < len(self._sets):  # _number appends the sets found on the way
            current = self._sets[len(states)]
            following = tuple(map(self._number, positions.after(current)))
            winner = max(positions.accepting(current), key=order.__getitem__, default=None)
            states.append(State(following, NO_PATTERN if winner is None else self._patterns[winner][1]))
        return states

    def _number(self, positions: int) -> int:
        number = self._numbers.get(positions)
        if number is None:
            number = len(self._sets)
            if number >= self._max_states:
                self._refuse()
            self._room -= positions.bit_length() // 8
            if self._room < 0:
                raise AutomatonTooLarge(
                    f"the patterns with wildcards inside are too many and long, {_REMEDY}"
                )
            self._numbers[positions] = number
            self._sets.append(positions)
        return number

    def _refuse(self) -> NoReturn:
        raise AutomatonTooLarge(
            f"the patterns with wildcards inside need more than {self._max_states} states, {_REMEDY}"
        )


def compile_globs(patterns: Sequence[tuple[HostPattern, int]], max_states: int = 4096) -> GlobAutomaton:
    """The automaton that gives the integer of the most specific pattern matching a name.

    Patterns of every kind may be given, though only GLOB ones need an automaton. Patterns of equal
    specificity: the later wins. Raises AutomatonTooLarge beyond `max_states` states, the dead one counted,
    or beyond MAX_SET_OCTETS.
    """
    return GlobAutomaton(_Subsets(patterns, max_states).build())

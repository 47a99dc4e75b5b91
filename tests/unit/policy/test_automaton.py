"""The automaton decides exactly as the patterns' own reference matching does."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ram_ebpf.policy.automaton import AutomatonTooLarge, GlobAutomaton, compile_globs, symbols_of
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.classes import CLASS_COUNT, OTHER, SEP, class_of, class_table
from ram_ebpf.policy.names import HostPattern, PatternError, PatternKind


def compiled(*patterns: str) -> GlobAutomaton:
    return compile_globs([(HostPattern.parse(text), number) for number, text in enumerate(patterns)])


def test_class_table() -> None:
    table = class_table()
    assert len(table) == 256
    assert max(table) == CLASS_COUNT - 2 == SEP - 1
    assert [table[ord(character)] for character in "azAZ09-_"] == [1, 26, 1, 26, 27, 36, 37, 38]
    assert {byte for byte in range(256) if table[byte] != OTHER} == set(
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    )


def test_symbols_are_right_to_left() -> None:
    assert symbols_of("a.bc") == [class_of(ord("c")), class_of(ord("b")), SEP, class_of(ord("a")), SEP]


def test_without_patterns_everything_is_dead() -> None:
    automaton = compile_globs([])
    assert len(automaton.states) == 1
    assert automaton.match("a.b") == -1


def test_dead_state_stays_dead() -> None:
    automaton = compiled("a*.b", "**.c*.d")
    assert set(automaton.states[0].next) == {0}
    assert automaton.states[0].accept == -1
    assert all(len(state.next) == CLASS_COUNT for state in automaton.states)
    assert all(state.next[OTHER] == 0 for state in automaton.states)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("a.x.c", 0, id="inner-star"),
        pytest.param("a.bb.c", 1, id="more-literal-characters"),
        pytest.param("x.y.s3.eu.d", 2, id="deep-and-glob"),
        pytest.param("s3.eu.d", -1, id="not-parent"),
        pytest.param("x.y.S3.EU.d.", 2, id="case"),
        pytest.param("a.b.c.e", -1, id="longer"),
        pytest.param("b.c", -1, id="shorter"),
        pytest.param("a..c", -1, id="not-a-name"),
    ],
)
def test_winner(name: str, expected: int) -> None:
    assert compiled("a.*.c", "a.b*.c", "**.s3.*.d").match(name) == expected


def test_equal_specificity_goes_to_the_later() -> None:
    assert compiled("a*.c", "*a.c").match("aa.c") == 1
    assert compiled("*a.c", "a*.c").match("aa.c") == 1


def test_accepts_only_after_the_last_separator() -> None:
    automaton = compiled("a*.c")
    symbols = symbols_of("ab.c")
    assert automaton.run(symbols) == 0
    assert automaton.run(symbols[:-1]) == -1


def test_too_large_names_the_remedy() -> None:
    # Which of the 20 letters were seen is 2**20 states.
    patterns = [(HostPattern.parse(f"*{letter}*.com"), 0) for letter in "abcdefghijklmnopqrst"]
    with pytest.raises(AutomatonTooLarge) as caught:
        compile_globs(patterns)
    assert str(caught.value) == (
        "the patterns with wildcards inside need more than 4096 states, "
        "use fewer * inside labels or write those hosts exactly"
    )


def test_very_many_patterns_are_refused_at_once() -> None:
    pattern = HostPattern.parse("a*.com")
    started = time.monotonic()
    with pytest.raises(AutomatonTooLarge, match="need more than 4096 states"):
        compile_globs([(pattern, number) for number in range(100_000)])
    assert time.monotonic() - started < 2


def test_memory_is_bounded() -> None:
    long = "a" * 55
    patterns = [(HostPattern.parse(f"*{number}-{long}.{long}.{long}.com"), number) for number in range(4000)]
    started = time.monotonic()
    with pytest.raises(AutomatonTooLarge) as caught:
        compile_globs(patterns)
    assert str(caught.value) == (
        "the patterns with wildcards inside are too many and long, "
        "use fewer * inside labels or write those hosts exactly"
    )
    assert time.monotonic() - started < 20


def test_hundreds_in_one_domain_fit() -> None:
    patterns = [(HostPattern.parse(f"a{number}*.corp.example"), number) for number in range(1000)]
    automaton = compile_globs(patterns)
    assert automaton.match("a999-x.corp.example") == 999
    assert automaton.match("a99x.corp.example") == 99


def test_limit_counts_every_state() -> None:
    needed = len(compiled("a*.c").states)
    pattern = [(HostPattern.parse("a*.c"), 0)]
    assert len(compile_globs(pattern, max_states=needed).states) == needed
    with pytest.raises(AutomatonTooLarge):
        compile_globs(pattern, max_states=needed - 1)


def test_catalogue_fits_well() -> None:
    globs = [host.host for _, host in load_catalogue().hosts() if host.host.kind is PatternKind.GLOB]
    assert len(compile_globs([(pattern, n) for n, pattern in enumerate(globs)]).states) < 400


# Few letters, so that generated names do match generated patterns.
LABEL = st.text("ab-_1", min_size=1, max_size=4)
NAMES = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


@st.composite
def patterns(draw: st.DrawFn) -> HostPattern:
    inner = st.one_of(LABEL, st.just("*"), st.text("ab*", min_size=1, max_size=5))
    labels = [*draw(st.lists(inner, max_size=3)), draw(st.text("ab", min_size=1, max_size=2))]
    if draw(st.booleans()):
        labels.insert(0, "**")
    try:
        return HostPattern.parse(".".join(labels))
    except PatternError:
        return HostPattern.parse("*." + labels[-1])


@st.composite
def names_like(draw: st.DrawFn, pattern: HostPattern) -> str:
    """A name that the pattern matches, or nearly."""
    labels: list[str] = []
    for label in pattern.labels:
        if label == "**":
            labels += draw(st.lists(LABEL, min_size=1, max_size=3))
        elif label == "*":
            labels.append(draw(LABEL))
        else:
            filled = "".join(draw(st.text("ab", max_size=2)) if c == "*" else c for c in label)
            labels.append(filled or "a")
    return ".".join(labels)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_same_as_the_reference(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(patterns(), min_size=1, max_size=5))
    automaton = compile_globs([(pattern, 100 + number) for number, pattern in enumerate(chosen)])
    names = [data.draw(names_like(pattern)) for pattern in chosen] + data.draw(st.lists(NAMES, max_size=5))
    for name in names:
        matching = [(p.specificity, 100 + n) for n, p in enumerate(chosen) if p.matches(name)]
        expected = max(matching)[1] if matching else -1
        assert automaton.match(name) == expected, (name, chosen)
        assert automaton.match(name.upper() + ".") == expected

"""Whatever the bytes, a policy either loads or is refused with PolicyErrors; nothing else is raised."""

from __future__ import annotations

import string
from collections.abc import Callable
from functools import partial

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.names import HostPattern, PatternError
from ram_ebpf.policy.rules import compile_rules


def read(data: bytes) -> None:
    try:
        compile_rules(parse_policy(data, "p.yaml"), load_catalogue())
    except PolicyErrors as errors:
        found = errors
    else:
        return
    assert found.errors
    assert all(line.isprintable() and len(line) < 500 for line in str(found).splitlines())
    assert all(error.problem and error.cure for error in found.errors)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"%YAML 9.9\n---\na: 1")
@example(b"? \n: \n")
@example(b"!<x> a: b")
def test_bytes(data: bytes) -> None:
    read(data)


_VOCABULARY = """
    version registries host hosts address ports also private resolvers auto dns scopes engine docker all
    posture strict mode audit enforce message organization grace_seconds ttl builders buildx cgroup unit
    netns device container ghcr docker-hub ghcr.io '*.a.b' "**.a" *x &x !t 1 0 443 65536 -1 1.5 true no ~
    10.0.0.1 10.0.0.1/8 10.0.0.1:80 ::1 fd00::/8 fe80::1%x https://a.b/c a:1 b\u00fc.example {} [] | > #
    --- ... ? % "a\\nb" denied allowed_names_only [10.0.0.0/8] [fd00::/8,10.0.0.1]
"""
_WORDS = st.sampled_from(_VOCABULARY.split())
_GLUE = st.sampled_from(
    [": ", ":\n  ", "\n", "\n- ", "\n  - ", "\n    ", ", ", " [", "]", " {", "}", " ", "\t", "\r\n"]
)


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.tuples(_WORDS, _GLUE), max_size=40), st.booleans())
def test_pieces_of_yaml(pieces: list[tuple[str, str]], headed: bool) -> None:
    head = "version: 1\nregistries:\n- " if headed else ""
    read((head + "".join(word + glue for word, glue in pieces)).encode())


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(string.printable, max_size=8), _WORDS
)
_DATA = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(_WORDS, st.text(max_size=4)), inner, max_size=4),
    ),
    max_leaves=20,
)
_POLICIES = st.fixed_dictionaries(
    {"version": st.just(1), "registries": _DATA},
    optional=dict.fromkeys(
        ("organization", "mode", "message", "denied", "resolvers", "dns", "scopes", "other"), _DATA
    ),
)


@settings(max_examples=1000, deadline=None)
@given(_POLICIES)
def test_data_of_the_wrong_shape(data: object) -> None:
    import yaml

    read(yaml.safe_dump(data, allow_unicode=True).encode())


# Nearly right, so that much of it gets as far as the rules.
_ENTRIES = st.fixed_dictionaries(
    {"host": st.sampled_from(["a.b", "*.b", "**.b", "x*.b", "ghcr.io", "A.b."])},
    optional={
        "ports": st.lists(st.integers(0, 70000), max_size=9),
        "also": st.lists(st.sampled_from(["a.b", "c.b", "*.c.b", "c:1"]), max_size=2),
        "private": st.one_of(
            _SCALARS,
            st.lists(
                st.one_of(
                    st.ip_addresses().map(str),
                    st.tuples(st.ip_addresses(), st.integers(0, 129)).map(
                        lambda pair: f"{pair[0]}/{pair[1]}"
                    ),
                    _SCALARS,
                ),
                max_size=17,
            ),
        ),
    },
)
_DENIED = st.one_of(st.sampled_from(["a.b", "*.b", "x*.b", "ghcr", "10.0.0.1", "https://a.b"]), _DATA)


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.one_of(_ENTRIES, st.just("ghcr")), min_size=1, max_size=4),
    st.lists(_DENIED, max_size=4),
    _SCALARS,
)
def test_denied_and_private(registries: list[object], denied: list[object], names_only: object) -> None:
    import yaml

    policy: dict[str, object] = {"version": 1, "registries": registries, "denied": denied}
    policy["dns"] = {"allowed_names_only": names_only}
    read(yaml.safe_dump(policy, allow_unicode=True).encode())


@settings(max_examples=2000, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.text("ab*.-_:/@[]0123456789üß。\u00ad\u200d", max_size=40),
        st.lists(_WORDS, max_size=4).map(".".join),
    )
)
def test_host_patterns(text: str) -> None:
    try:
        pattern = HostPattern.parse(text)
    except PatternError as error:
        message = str(error) + error.cure_alone
    else:
        message = ""
    assert message.isprintable()
    if message:
        return
    assert HostPattern.parse(pattern.text) == pattern  # what is canonical stays as it is
    assert HostPattern.parse(pattern.text).labels == pattern.labels
    assert pattern.text.isascii()
    assert len(pattern.text) <= 253


_PIECES = st.sampled_from(
    ["a", "B1", "x-y", "_", "-", "1", "10", "*", "**", ".", "..", "\u00fc", "a" * 63, ""]
)


@given(st.lists(_PIECES, max_size=8).map("".join) | st.lists(_PIECES, max_size=6).map(".".join))
@example("**.a.example.")
@example("*.10.0.0.1")
@example("*." + ".".join(["a" * 50] * 5))
def test_the_quick_way_gives_what_the_slow_one_gives(text: str) -> None:
    """HostPattern.parse() has a short cut for what nearly every pattern looks like."""

    def outcome(parse: Callable[[], HostPattern]) -> object:
        try:
            found = parse()
        except PatternError as error:
            return str(error)
        return found.text, found.labels, found.kind

    slowly = partial(HostPattern._parse_slowly, text, text[:-1] if text.endswith(".") else text)
    assert outcome(partial(HostPattern.parse, text)) == outcome(slowly)

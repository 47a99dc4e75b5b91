"""Rules that lie in a row are the rules that were put there."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ram_ebpf.policy.choices import Action
from ram_ebpf.policy.names import HostPattern, PatternKind
from ram_ebpf.policy.ruleset import NameRule, NameRules, RuleSet

ORIGINS = ["policy.yaml:12", "ghcr, policy.yaml:9", "ghcr", "", "a:b", "policy.yaml:012", "x:0", "y:²", ":7"]
ORIGINS += ["z:9999999999", "registries[3]"]
LABEL = st.sampled_from(["a", "b", "example", "x-1", "team"])
NAME = st.lists(LABEL, min_size=1, max_size=4).map(".".join)
PATTERN = st.builds(lambda front, name: front + name, st.sampled_from(["", "*.", "**.", "img-*."]), NAME)


@st.composite
def rules(draw: st.DrawFn) -> list[NameRule]:
    patterns = draw(st.lists(PATTERN, unique=True, max_size=20))
    return [
        NameRule(
            HostPattern.parse(text),
            draw(st.sampled_from([(443,), (80, 443), ()])),
            draw(st.sampled_from(ORIGINS)),
            draw(st.booleans()),
            draw(st.booleans()),
            rank,
            draw(st.sampled_from([(), ("api", "auth")])),
            deny=draw(st.booleans()),
            known=draw(st.booleans()),
            actions=draw(st.sampled_from([(), (Action.PULL,)])),
            unnamed=draw(st.booleans()),
            proxy=draw(st.booleans()),
        )
        for rank, text in enumerate(patterns, start=1)
    ]


@given(rules())
def test_what_was_put_there(given_rules: list[NameRule]) -> None:
    kept = NameRules(iter(given_rules))
    assert list(kept) == given_rules
    assert [kept[index] for index in range(len(kept))] == given_rules
    assert kept[1:3] == tuple(given_rules[1:3])
    assert pickle.loads(pickle.dumps(kept)) == kept
    for rule, (like, text) in zip(given_rules, kept.likes(), strict=True):
        assert (text, like.pattern.kind, like.ports) == (rule.pattern.text, rule.pattern.kind, rule.ports)
        assert (like.deny, like.known, like.proxy) == (rule.deny, rule.known, rule.proxy)


@given(rules(), NAME)
def test_ranks_of_a_suffix(given_rules: list[NameRule], name: str) -> None:
    kept = NameRules(given_rules)
    by_text = {rule.pattern.text: rule.rank for rule in given_rules}
    wanted = tuple(by_text.get(f"{front}{name}", 0) for front in ("", "*.", "**."))
    assert kept.ranks_of(name) == wanted
    suffixes = dict(kept.suffixes())
    assert len(suffixes) == kept.count_suffixes()
    assert suffixes.get(name, (0, 0, 0)) == wanted


@given(rules(), NAME)
def test_the_greatest_rank_that_matches_decides(given_rules: list[NameRule], name: str) -> None:
    """But for an exact rule, which compile_rules() gives the greatest rank unless it is `known`."""
    made = RuleSet(given_rules, ())
    matching = [rule for rule in given_rules if rule.pattern.matches(name)]
    exact = [r for r in matching if r.pattern.kind is PatternKind.EXACT and not r.known]
    assert made.match(name) == max(exact or matching, key=lambda rule: rule.rank, default=None)


def test_no_such_rule() -> None:
    kept = NameRules()
    assert (len(kept), list(kept), kept.ranks_of("a.example"), kept[:1]) == (0, [], (0, 0, 0), ())
    for index in (0, -1):
        with pytest.raises(IndexError):
            kept[index]


def test_ranks_without_a_gap() -> None:
    rule = NameRule(HostPattern.parse("a.example"), (443,), "p:1", False, False, 2)
    with pytest.raises(ValueError, match=r"rule a\.example \(p:1\) has rank 2 in the place of rank 1"):
        NameRules([rule])


@pytest.mark.parametrize("count", [1, 100, 5000])
def test_many(count: int) -> None:
    made = [
        NameRule(HostPattern.parse(f"h{n}.example"), (443,), f"p.yaml:{n}", False, False, n)
        for n in range(1, count + 1)
    ]
    kept = NameRules(made)
    assert all(kept.ranks_of(f"h{n}.example") == (n, 0, 0) for n in range(1, count + 1))
    assert kept.ranks_of("h0.example") == (0, 0, 0)
    assert len(list(kept.common())) == 1

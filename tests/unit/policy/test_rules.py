"""From a policy to its rules."""

from __future__ import annotations

import ipaddress
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ram_ebpf.policy.catalogue import Catalogue, load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.model import HostEntry, Policy
from ram_ebpf.policy.names import HostPattern, PatternKind
from ram_ebpf.policy.rules import MAX_PORT_LISTS, AddressRule, RuleSet, compile_rules


def rules_of(registries: str, catalogue: Catalogue | None = None) -> RuleSet:
    policy = parse_policy(f"version: 1\nregistries:\n{registries}".encode(), "/etc/p.yaml")
    return compile_rules(policy, catalogue or load_catalogue())


def test_default_is_docker_hub_alone() -> None:
    rules = compile_rules(default_policy(), load_catalogue())
    assert {rule.origin for rule in rules.names} == {"docker-hub"}
    assert rules.addresses == ()
    for name in ("registry-1.docker.io", "auth.docker.io", "production.cloudfront.docker.com"):
        assert rules.match(name) is not None
    for name in ("ghcr.io", "evilregistry-1.docker.io", "docker.io", "quay.io", "a.registry-1.docker.io"):
        assert rules.match(name) is None


def test_ports_and_origins() -> None:
    rules = rules_of(
        "  - host: a.b\n    ports: [5000, 443]\n    also:\n      - c.b\n      - {host: d.b, ports: [1]}\n"
    )
    assert {rule.pattern.text: (rule.ports, rule.origin) for rule in rules.names} == {
        "a.b": ((443, 5000), "p.yaml:3"),
        "c.b": ((443, 5000), "p.yaml:6"),
        "d.b": ((1,), "p.yaml:7"),
    }


def test_addresses() -> None:
    rules = rules_of("  - address: 10.20.0.0/24\n    ports: [5000, 443]\n  - address: fd00::1\n")
    assert rules.addresses == (
        AddressRule(ipaddress.ip_network("10.20.0.0/24"), (443, 5000), "p.yaml:3"),
        AddressRule(ipaddress.ip_network("fd00::1/128"), (443,), "p.yaml:5"),
    )
    assert not rules.names


def test_catalogue_and_own_entry_merge() -> None:
    rules = rules_of("  - ghcr\n  - host: GHCR.io\n    ports: [8443]\n    private: true\n")
    rule = rules.match("ghcr.io")
    assert rule is not None
    assert (rule.ports, rule.origin, rule.private) == ((443, 8443), "ghcr, p.yaml:4", True)
    assert rule.roles == ("api",)


def test_also_of_two_entries_merges() -> None:
    rules = rules_of("  - {host: a.b, also: [s.b]}\n  - {host: c.b, ports: [5000], also: [s.b]}\n")
    rule = rules.match("s.b")
    assert rule is not None
    assert (rule.ports, rule.origin) == ((443, 5000), "p.yaml:3, p.yaml:4")


def test_more_than_eight_ports_after_the_merge() -> None:
    with pytest.raises(PolicyErrors) as caught:
        rules_of("  - ghcr\n  - host: ghcr.io\n    ports: [1, 2, 3, 4, 5, 6, 7, 8]\n")
    assert str(caught.value) == (
        "/etc/p.yaml:4: registries[1]: host ghcr.io has 9 ports together with ghcr, a host has at most 8"
    )


def test_id_that_another_catalogue_lacks() -> None:
    policy = parse_policy(b"version: 1\nregistries: [ghcr]\n", "p.yaml")
    other = Catalogue(registries=tuple(r for r in load_catalogue().registries if r.id != "ghcr"))
    with pytest.raises(PolicyErrors) as caught:
        compile_rules(policy, other)
    assert str(caught.value) == (
        "p.yaml:2: registries[0]: ghcr is not in the catalogue, write host: for its hosts"
    )


def test_optional_hosts_are_not_allowed_by_the_id() -> None:
    assert rules_of("  - jfrog\n").match("d111111abcdef8.cloudfront.net") is None
    assert rules_of("  - jfrog\n").match("acme.jfrog.io") is not None


@pytest.mark.parametrize(
    ("host", "shared"),
    [
        pytest.param("storage.googleapis.com", True, id="same"),
        pytest.param("anything.blob.core.windows.net", True, id="exact-of-pattern"),
        pytest.param(
            "prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com", True, id="exact-of-glob"
        ),
        pytest.param("'*.blob.core.windows.net'", True, id="same-pattern"),
        pytest.param("ghcr.io", False, id="own"),
        pytest.param("registry.corp.example", False, id="unknown"),
        pytest.param("localhost", False, id="one-label"),
    ],
)
def test_shared_is_known_for_own_entries(host: str, shared: bool) -> None:
    (rule,) = rules_of(f"  - host: {host}\n").names
    assert rule.shared is shared


def test_most_specific_decides() -> None:
    rules = rules_of(
        "  - {host: a.reg.b, ports: [1]}\n"
        "  - {host: '*.reg.b', ports: [2]}\n"
        "  - {host: '**.reg.b', ports: [3]}\n"
        "  - {host: 'x*.reg.b', ports: [4]}\n"
        "  - {host: '**.b', ports: [5]}\n"
        "  - {host: '*x.reg.b', ports: [6]}\n"
    )
    decided = {name: rule.ports for name in NAMES if (rule := rules.match(name))}
    assert decided == {
        "a.reg.b": (1,),
        "c.reg.b": (2,),
        "a.c.reg.b": (3,),
        "xa.reg.b": (4,),
        "ax.reg.b": (6,),
        "xx.reg.b": (6,),  # as specific as x*, but later
        "reg.b": (5,),
    }
    assert [rule.rank for rule in rules.names] == [1, 2, 3, 4, 5, 6]
    assert rules.exact_names() == ("a.reg.b",)


NAMES = ["a.reg.b", "c.reg.b", "a.c.reg.b", "xa.reg.b", "ax.reg.b", "xx.reg.b", "reg.b", "b", "a.regb", ""]

_LABELS = st.sampled_from(["a", "b", "ab", "*", "a*", "*b"])
_PATTERNS = st.tuples(st.booleans(), st.lists(_LABELS, max_size=3), st.sampled_from(["a", "b"])).map(
    lambda parts: ".".join(["**"] * parts[0] + parts[1] + [parts[2]])
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_PATTERNS, min_size=1, max_size=8, unique=True),
    st.lists(st.sampled_from(["a", "b", "ab", "aab"]), min_size=1, max_size=5).map(".".join),
)
def test_match_is_the_greatest_rank_that_matches(texts: list[str], name: str) -> None:
    rules = rules_of("".join(f"  - host: '{text}'\n" for text in texts))
    matching = [rule for rule in rules.names if rule.pattern.matches(name)]
    assert rules.match(name.upper() + ".") == max(matching, key=lambda rule: rule.rank, default=None)
    assert [rule.rank for rule in rules.names] == list(range(1, len(texts) + 1))
    ranks = [rule.pattern.specificity for rule in rules.names]
    assert ranks == sorted(ranks)
    assert sum(len(list(rules.of_kind(kind))) for kind in PatternKind) == len(texts)


def denying(registries: str, *denied: str) -> RuleSet:
    return rules_of(registries + "denied:\n" + "".join(f"  - '{text}'\n" for text in denied))


def verdicts(rules: RuleSet, *names: str) -> list[bool]:
    return [rules.allows(name) is not None for name in names]


def test_denied_is_subtracted() -> None:
    rules = denying("  - host: '**.corp.example'\n", "public.corp.example")
    assert verdicts(rules, "a.corp.example", "PUBLIC.corp.example.", "a.public.corp.example") == [
        True,
        False,
        True,
    ]
    rule = rules.match("public.corp.example")
    assert rule is not None
    assert (rule.deny, rule.ports, rule.origin, rule.rank) == (True, (), "p.yaml:5", 2)
    assert (rule.shared, rule.private, rule.private_networks, rule.roles) == (False, False, (), ())
    assert rules.allows("other.example") is None


def test_denied_host_of_a_catalogue_id() -> None:
    rules = denying("  - ghcr\n", "GHCR.io")
    assert verdicts(rules, "ghcr.io", "pkg-containers.githubusercontent.com") == [False, True]
    # One rule a pattern: that of the catalogue could never decide.
    assert [(rule.pattern.text, rule.deny) for rule in rules.names] == [
        ("ghcr.io", True),
        ("pkg-containers.githubusercontent.com", False),
    ]
    assert [rule.origin for rule in rules.names] == ["p.yaml:5", "ghcr"]


@pytest.mark.parametrize("pattern", ["a.b.example", "*.b.example", "**.b.example", "a*.b.example"])
def test_same_pattern_allowed_and_denied(pattern: str) -> None:
    rules = denying(f"  - host: '{pattern}'\n    ports: [5000]\n", pattern)
    assert [(rule.pattern.text, rule.deny, rule.ports, rule.rank) for rule in rules.names] == [
        (pattern, True, (), 1)
    ]
    assert rules.allows("a.b.example") is None


@pytest.mark.parametrize(
    ("allowed", "denied", "name", "expected"),
    [
        pytest.param("a.b.c", "*.b.c", "a.b.c", True, id="exact-before-star"),
        pytest.param("*.b.c", "a.b.c", "a.b.c", False, id="denied-exact-before-star"),
        pytest.param("*.b.c", "**.b.c", "a.b.c", True, id="star-before-deep"),
        pytest.param("**.b.c", "*.b.c", "x.a.b.c", True, id="deep-beside-denied-star"),
        pytest.param("**.c", "**.b.c", "a.b.c", False, id="denied-longer-suffix"),
        pytest.param("**.b.c", "**.c", "a.b.c", True, id="longer-suffix"),
        pytest.param("a*.b.c", "*z.b.c", "az.b.c", False, id="globs-as-specific"),
        pytest.param("ab*.b.c", "*z.b.c", "abz.b.c", True, id="more-specific-glob"),
        pytest.param("*.b.c", "*z.b.c", "az.b.c", False, id="denied-glob-before-star"),
        pytest.param("b.c", "**.b.c", "b.c", True, id="parent"),
        pytest.param("**.b.c", "a.b.d", "a.b.c", True, id="no-overlap"),
    ],
)
def test_most_specific_decides_denied_too(allowed: str, denied: str, name: str, expected: bool) -> None:
    rules = denying(f"  - host: '{allowed}'\n", denied)
    assert verdicts(rules, name) == [expected]
    before = f"version: 1\ndenied: ['{denied}']\nregistries: [{{ host: '{allowed}' }}]\n"
    assert verdicts(compile_rules(parse_policy(before.encode(), "p.yaml"), load_catalogue()), name) == [
        expected
    ]


def test_exact_names_are_allowed_ones() -> None:
    rules = denying("  - host: a.b\n  - host: c.b\n  - host: '*.b'\n", "c.b", "d.b")
    assert rules.exact_names() == ("a.b",)
    assert [rule.pattern.text for rule in rules.of_kind(PatternKind.EXACT)] == ["a.b", "c.b", "d.b"]


def test_denied_without_a_file() -> None:
    pattern = HostPattern.parse("a.b")
    policy = Policy(version=1, registries=(HostEntry(host=pattern),), denied=(pattern, pattern))
    (rule,) = compile_rules(policy, load_catalogue()).names
    assert (rule.deny, rule.origin) == (True, "denied[1]")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_PATTERNS, min_size=1, max_size=6, unique=True),
    st.lists(_PATTERNS, min_size=1, max_size=6, unique=True),
    st.lists(st.sampled_from(["a", "b", "ab", "aab"]), min_size=1, max_size=5).map(".".join),
)
def test_denied_decides_as_said(allowed: list[str], denied: list[str], name: str) -> None:
    rules = denying("".join(f"  - host: '{text}'\n" for text in allowed), *denied)
    said = [(HostPattern.parse(text), False, place) for place, text in enumerate(allowed)]
    said += [(HostPattern.parse(text), True, place) for place, text in enumerate(denied)]
    matching = [
        (pattern.specificity, deny, place, pattern.text)
        for pattern, deny, place in said
        if pattern.matches(name)
    ]
    rule = rules.match(name)
    assert (rule and (rule.pattern.text, rule.deny)) == (
        (max(matching)[3], max(matching)[1]) if matching else None
    )
    assert rules.allows(name) == (rule if rule and not rule.deny else None)
    assert [rule.rank for rule in rules.names] == list(range(1, len({*allowed, *denied}) + 1))
    assert all(bool(rule.ports) != rule.deny for rule in rules.names)
    assert {rule.pattern.text for rule in rules.names if rule.deny} == set(denied)


NETWORKS = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "10.20.0.0/16", "::1/128", "fd00:1::/64")]


def private_of(registries: str, name: str) -> tuple[bool, tuple[object, ...]]:
    rule = rules_of(registries).allows(name)
    assert rule is not None
    return rule.private, rule.private_networks


def test_private_networks_are_sorted() -> None:
    text = "  - {host: a.b, also: [c.b], private: [fd00:1::/64, 10.20.0.0/16, '::1', 10.0.0.0/8]}\n"
    assert private_of(text, "a.b") == private_of(text, "c.b") == (False, tuple(NETWORKS))


def test_private_networks_of_mentions_merge() -> None:
    text = "  - {host: a.b, also: [s.b], private: [fd00:1::/64, 10.0.0.0/8]}\n"
    text += "  - {host: c.b, also: [s.b], private: [10.20.0.0/16, 10.0.0.0/8, '::1']}\n"
    text += "  - {host: d.b, also: [s.b], private: false}\n"
    assert private_of(text, "s.b") == (False, tuple(NETWORKS))
    assert private_of(text, "d.b") == (False, ())


@pytest.mark.parametrize("order", [("true", "[10.0.0.0/8]"), ("[10.0.0.0/8]", "true")])
def test_private_true_wins(order: tuple[str, str]) -> None:
    text = "".join(f"  - {{host: {n}.b, also: [s.b], private: {one}}}\n" for n, one in enumerate(order))
    assert private_of(text, "s.b") == (True, ())


def test_private_of_catalogue_hosts() -> None:
    assert private_of("  - ghcr\n", "ghcr.io") == (False, ())
    assert private_of("  - ghcr\n  - {host: ghcr.io, private: [10.0.0.0/8]}\n", "ghcr.io") == (
        False,
        (NETWORKS[0],),
    )


def test_port_lists() -> None:
    rules = denying(
        "  - {host: a.b, ports: [2, 1]}\n"
        "  - {host: '*.b', ports: [3]}\n"
        "  - {host: c.b, ports: [1, 2]}\n"
        "  - {host: d.b}\n"
        "  - {host: e.b, ports: [4]}\n"
        "  - {address: 10.0.0.1, ports: [5]}\n",
        "e.b",
        "f.b",
    )
    assert rules.port_lists() == ((3,), (1, 2), (443,))
    assert rules.port_lists() is rules.port_lists()
    assert RuleSet((), ()).port_lists() == ()


def _with_port_lists(count: int) -> str:
    return "".join(f"  - {{host: r{n}.b, ports: [{n}, 5000]}}\n" for n in range(1, count + 1))


def test_as_many_port_lists_as_there_may_be() -> None:
    rules = rules_of(_with_port_lists(MAX_PORT_LISTS) + "  - {host: again.b, ports: [5000, 1]}\n")
    assert len(rules.port_lists()) == MAX_PORT_LISTS == 64


def port_list_error(text: str) -> str:
    with pytest.raises(PolicyErrors) as caught:
        rules_of(text)
    return str(caught.value)


CURE = "give some hosts the same ports, as a policy has at most 64 lists"


def test_one_port_list_too_many() -> None:
    assert port_list_error(_with_port_lists(67)) == (
        f"/etc/p.yaml:67: registries[64]: ports [65, 5000] of host r65.b are the 65th different list, {CURE}"
    )


def test_catalogue_has_a_port_list_too() -> None:
    assert port_list_error(_with_port_lists(64) + "  - ghcr\n") == (
        f"/etc/p.yaml:67: registries[64]: ports [443] of host ghcr.io are the 65th different list, {CURE}"
    )


def test_port_list_of_an_also_host() -> None:
    text = _with_port_lists(63) + "  - host: a.b\n    also:\n      - host: c.b\n        ports: [9]\n"
    assert port_list_error(text) == (
        f"/etc/p.yaml:68: registries[63]: ports [9] of host c.b are the 65th different list, {CURE}"
    )


def test_port_list_made_by_a_later_mention() -> None:
    text = "  - ghcr\n" + _with_port_lists(63) + "  - {host: ghcr.io, ports: [8443]}\n"
    assert port_list_error(text) == (
        "/etc/p.yaml:67: registries[64]: "
        f"ports [443, 8443] of host ghcr.io are the 65th different list, {CURE}"
    )


def test_denied_hosts_need_no_port_list() -> None:
    rules = denying(_with_port_lists(66), "r1.b", "r2.b", "x.b")
    assert len(rules.port_lists()) == 64


def test_port_lists_of_a_merge_count_once_merged() -> None:
    # Alone, each of the two mentions would be a list of its own.
    text = _with_port_lists(63) + "  - {host: a.b, ports: [7000]}\n"
    text += "  - {host: c.b, ports: [1, 5000], also: [{host: a.b, ports: [7001]}]}\n"
    rules = rules_of(text)
    assert len(rules.port_lists()) == 64
    assert (7000, 7001) in rules.port_lists()


def test_a_hundred_thousand_rules_compile_in_seconds() -> None:
    half = 50_000
    text = "version: 1\nregistries:\n"
    text += "".join(f"  - host: r{number}.example.com\n" for number in range(half))
    text += "denied:\n" + "".join(f"  - '*.r{number}.example.com'\n" for number in range(half))
    policy = parse_policy(text.encode(), "p.yaml")
    started = time.process_time()  # other work on the machine does not count
    rules = compile_rules(policy, load_catalogue())
    assert time.process_time() - started < 10
    assert len(rules.names) == 2 * half
    assert (len(rules.exact_names()), rules.port_lists()) == (half, ((443,),))

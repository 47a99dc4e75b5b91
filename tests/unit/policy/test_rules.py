"""From a policy to its rules."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ram_ebpf.policy.catalogue import Catalogue, load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.rules import AddressRule, RuleSet, compile_rules


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
    assert rules.names == ()


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
    assert sum(len(rules.of_kind(kind)) for kind in PatternKind) == len(texts)

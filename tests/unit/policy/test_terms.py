"""What applies in one scope: its posture, registries of its own, and the rules that come of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ram_ebpf.policy.catalogue import Role, load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import MAX_RULES, parse_policy
from ram_ebpf.policy.model import AddressEntry, CatalogueEntry, HostEntry, Policy
from ram_ebpf.policy.names import PatternKind
from ram_ebpf.policy.rules import NameRule, RuleSet, compile_rules
from ram_ebpf.policy.scope import Posture
from ram_ebpf.policy.scope_rules import rules_of, rules_of_scopes
from ram_ebpf.policy.terms import STRICT, Terms

CATALOGUE = load_catalogue()
POLICY = """version: 1
registries:
  - ghcr
scopes:
  - engine: docker
  - cgroup: /a
    registries:
      - quay
      - host: registry.corp.example
        ports: [5000]
        also:
          - blobs.corp.example
      - address: 10.20.0.0/24
  - host:
      registries:
        - docker-hub
        - { host: only.host.example }
  - unit: b.service
    posture: registries
"""


def parse(text: str) -> Policy:
    return parse_policy(text.encode(), "/etc/p.yaml")


def errors_of(text: str) -> list[str]:
    with pytest.raises(PolicyErrors) as caught:
        rules_of_scopes(parse(text), CATALOGUE)
    return [str(error) for error in caught.value.errors]


def terms_of(policy: Policy) -> list[Terms]:
    return [Terms.of(scope, index) for index, scope in enumerate(policy.scopes)]


def allowed(rules: RuleSet) -> dict[str, str]:
    return {rule.pattern.text: rule.origin for rule in rules.names if not rule.deny}


# --- the file


def test_scopes_have_registries_of_their_own() -> None:
    engine, cgroup, host, unit = parse(POLICY).scopes
    assert engine.registries == unit.registries == ()
    assert [type(entry) for entry in cgroup.registries] == [CatalogueEntry, HostEntry, AddressEntry]
    assert [type(entry) for entry in host.registries] == [CatalogueEntry, HostEntry]


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        pytest.param(
            "{ cgroup: /a, registries: [] }",
            "4: scopes[0].registries: the list is empty, write at least one item, such as [quay]",
            id="empty",
        ),
        pytest.param(
            "{ cgroup: /a, registries: quay }",
            "4: scopes[0].registries: 'quay' where a list belongs, write a list, such as [quay]",
            id="no list",
        ),
        pytest.param(
            "{ cgroup: /a, registries: [quai] }",
            "4: scopes[0].registries[0]: 'quai' is not in the catalogue, did you mean quay?",
            id="not in the catalogue",
        ),
        pytest.param(
            "{ host: { registries: [quai] } }",
            "4: scopes[0].host.registries[0]: 'quai' is not in the catalogue, did you mean quay?",
            id="in the host",
        ),
        pytest.param(
            "{ unit: a.service, registries: [{ host: 'a.*' }] }",
            "4: scopes[0].registries[0].host: 'a.*' ends in a wildcard, "
            "write the last label out, as in *.example.com",
            id="a host",
        ),
        pytest.param(
            "{ cgroup: /a, registries:\n      [quay, { host: a.example, also: [b.example],\n"
            "      ports: [0] }] }",
            "6: scopes[0].registries[1].ports[0]: the number 0 is not a port, write a number from 1 to 65535",
            id="on a later line",
        ),
        pytest.param(
            "{ cgroup: /a, registries: [quay,\n      quay] }",
            "5: scopes[0].registries[1]: catalogue id 'quay' is already on line 4, keep one of them",
            id="an id twice",
        ),
        pytest.param(
            "{ cgroup: /a, registries: [{ host: a.example },\n      { host: A.example }] }",
            "5: scopes[0].registries[1].host: host a.example is already on line 4, "
            "keep one entry with all the ports",
            id="a host twice",
        ),
        pytest.param(
            "{ host: { registries: [{ address: 10.0.0.1 },\n      { address: 10.0.0.1/32 }] } }",
            "5: scopes[0].host.registries[1].address: address 10.0.0.1/32 is already on line 4, "
            "keep one entry with all the ports",
            id="an address twice, of the host",
        ),
    ],
)
def test_refused(scope: str, message: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        parse(f"version: 1\nregistries: [ghcr]\nscopes:\n  - {scope}\n")
    assert [str(error) for error in caught.value.errors] == [f"/etc/p.yaml:{message}"]


def test_what_the_whole_policy_has_may_stand_in_scopes_as_well() -> None:
    text = "version: 1\nregistries: [ghcr]\nscopes:\n"
    text += "  - { cgroup: /a, registries: [ghcr] }\n  - { cgroup: /b, registries: [ghcr] }\n"
    first, second = terms_of(parse(text))
    assert first == second
    (rules,) = rules_of_scopes(parse(text), CATALOGUE).values()
    assert allowed(rules) == allowed(compile_rules(parse(text), CATALOGUE))


def test_registries_of_scopes_count_towards_the_most() -> None:
    entries = "".join(f"      - {{ host: h{number}.example }}\n" for number in range(MAX_RULES // 2))
    text = f"version: 1\nregistries: [ghcr]\nscopes:\n  - cgroup: /a\n    registries:\n{entries}"
    text += f"  - host:\n     registries:\n{entries}"
    with pytest.raises(PolicyErrors) as caught:
        parse(text)
    assert f"{MAX_RULES + 1} hosts and addresses are more than {MAX_RULES}" in str(caught.value)


# --- terms


def test_terms() -> None:
    engine, cgroup, host, unit = terms_of(parse(POLICY))
    assert engine == STRICT
    assert (cgroup.posture, cgroup.scope) == (Posture.STRICT, 1)
    assert (host.posture, host.scope) == (Posture.REGISTRIES, 2)
    assert unit == Terms(Posture.REGISTRIES)
    assert len({engine, cgroup, host, unit}) == 4


def test_scopes_of_equal_terms_have_one_set_of_rules() -> None:
    policy = parse(
        "version: 1\nregistries: [ghcr]\nscopes:\n"
        "  - { cgroup: /a, registries: [quay] }\n"
        "  - { cgroup: /b }\n"
        "  - { unit: c.service, registries: [quay] }\n"
    )
    made = rules_of_scopes(policy, CATALOGUE)
    assert [terms.scope for terms in made] == [0, 1]


def test_rules_of_a_scope() -> None:
    policy = parse(POLICY)
    engine, cgroup, host, unit = (rules_of(policy, CATALOGUE, terms) for terms in terms_of(policy))
    everywhere = allowed(engine)
    assert set(everywhere.values()) == {"ghcr"}
    assert allowed(unit) == everywhere
    more = {name: origin for name, origin in allowed(cgroup).items() if name not in everywhere}
    assert more.pop("registry.corp.example") == "p.yaml:9"
    assert more.pop("blobs.corp.example") == "p.yaml:12"
    assert set(more.values()) == {"quay"}
    assert [(str(rule.network), rule.origin) for rule in cgroup.addresses] == [("10.20.0.0/24", "p.yaml:13")]
    of_the_host = {name: origin for name, origin in allowed(host).items() if name not in everywhere}
    assert of_the_host.pop("only.host.example") == "p.yaml:17"
    assert set(of_the_host.values()) == {"docker-hub"}
    assert host.addresses == ()
    # The whole policy is as it was.
    assert policy.origin_of(0) == "p.yaml:3"
    assert len(policy.registries) == 1


def test_scope_of_the_command_line_has_no_place_in_the_file() -> None:
    policy = parse(POLICY)
    terms = Terms(registries=(policy.scopes[1].registries[1],))
    assert allowed(rules_of(policy, CATALOGUE, terms))["registry.corp.example"] == "scope.registries[0]"


def test_entries_of_the_policy_and_of_a_scope_merge() -> None:
    policy = parse(
        "version: 1\nregistries:\n  - host: a.example\nscopes:\n  - cgroup: /a\n    registries:\n"
        "      - { host: a.example, ports: [5000], private: true }\n"
    )
    rule = rules_of(policy, CATALOGUE, Terms.of(policy.scopes[0], 0)).match("a.example")
    assert rule is not None
    assert (rule.ports, rule.private, rule.origin) == ((443, 5000), True, "p.yaml:3, p.yaml:7")


def test_what_is_denied_is_denied_in_a_scope_as_well() -> None:
    policy = parse(
        "version: 1\nregistries: [ghcr]\ndenied: [a.example]\nscopes:\n"
        "  - { cgroup: /a, registries: [{ host: a.example }] }\n"
    )
    rules = rules_of(policy, CATALOGUE, Terms.of(policy.scopes[0], 0))
    assert rules.allows("a.example") is None


def test_too_many_ports_together_with_the_policy() -> None:
    scope = "    registries:\n      - quay\n      - { host: ghcr.io, ports: [1, 2, 3, 4, 5, 6, 7, 8] }\n"
    head = "version: 1\nregistries: [ghcr]\nscopes:\n  - engine: docker\n"
    assert errors_of(f"{head}  - cgroup: /a\n{scope}") == [
        "/etc/p.yaml:8: scopes[1].registries[1]: host ghcr.io has 9 ports together with ghcr, "
        "a host has at most 8"
    ]


def test_too_many_ports_in_the_host() -> None:
    text = (
        "version: 1\nregistries: [ghcr]\nscopes:\n  - host:\n      posture: strict\n      registries:\n"
        "        - { host: ghcr.io, ports: [1, 2, 3, 4, 5, 6, 7, 8] }\n"
    )
    (error,) = errors_of(text)
    assert error.startswith("/etc/p.yaml:7: scopes[0].host.registries[0]: host ghcr.io has 9 ports ")


def test_too_many_lists_of_ports_together_with_the_policy() -> None:
    hosts = "".join(f"  - {{ host: h{n}.example, ports: [{n}] }}\n" for n in range(1, 65))
    text = f"version: 1\nregistries:\n{hosts}scopes:\n  - cgroup: /a\n    registries:\n"
    text += "      - { host: more.example, ports: [1000] }\n"
    assert compile_rules(parse(text), CATALOGUE).port_lists()
    (error,) = errors_of(text)
    assert error.startswith("/etc/p.yaml:70: scopes[0].registries[0]: ports [1000] of host more.example")


# --- registries of the catalogue, where registries are recognised


def recognising(registries: str, denied: str = "") -> RuleSet:
    text = f"version: 1\nregistries: [{registries}]\n" + (f"denied: [{denied}]\n" if denied else "")
    return rules_of(parse(text), CATALOGUE, Terms(Posture.REGISTRIES))


def known(rules: RuleSet) -> dict[str, NameRule]:
    return {rule.pattern.text: rule for rule in rules.names if rule.known}


def test_strict_scopes_need_no_rules_against_others() -> None:
    policy = parse(POLICY)
    assert not known(rules_of(policy, CATALOGUE, STRICT))
    assert not known(compile_rules(policy, CATALOGUE))


def test_registries_of_the_catalogue_are_denied() -> None:
    rules = recognising("ghcr")
    found = known(rules)
    assert {"quay.io", "registry-1.docker.io", "registry.k8s.io"} <= set(found)
    for rule in found.values():
        assert (rule.deny, rule.ports, rule.private, rule.private_networks) == (True, (), False, ())
    decides = rules.match("quay.io")
    assert decides is not None
    assert (decides.known, decides.origin) == (True, "quay")
    assert rules.allows("quay.io") is None
    assert "quay.io" not in rules.exact_names()


def test_only_hosts_that_all_clients_ask_first_and_that_are_nobody_elses() -> None:
    found = known(recognising("{ host: a.example }"))
    wanted = {
        host.host.text
        for _, host in CATALOGUE.hosts()
        if host.role is Role.API and not host.shared and not host.optional
    }
    assert set(found) == wanted
    others = {host.host.text for _, host in CATALOGUE.hosts()} - wanted
    assert "auth.docker.io" in others
    assert not others & set(found)


def test_registries_of_the_policy_are_not() -> None:
    rules = recognising("ghcr, quay")
    assert not {"ghcr.io", "quay.io"} & set(known(rules))
    assert rules.allows("quay.io") is not None


def test_denied_hosts_of_the_policy_are_its_own() -> None:
    rule = recognising("ghcr", "quay.io").match("quay.io")
    assert rule is not None
    assert (rule.deny, rule.known, rule.origin) == (True, False, "p.yaml:3")


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("{ host: '*.io' }", "quay.io"),
        ("{ host: '**.io' }", "quay.io"),
        ("{ host: 'qu*.io' }", "quay.io"),
        ("{ host: quay.io }", "quay.io"),
        ("{ host: a.example, also: ['**.io'] }", "quay.io"),
        ("{ host: 1.dkr.ecr.eu-west-1.amazonaws.com }", "1.dkr.ecr.eu-west-1.amazonaws.com"),
        ("{ host: '**.amazonaws.com' }", "1.dkr.ecr.eu-west-1.amazonaws.com"),
    ],
)
def test_they_give_way_to_all_that_is_allowed(entry: str, name: str) -> None:
    """An exact name of the catalogue to a wildcard of the policy as well."""
    before = recognising("{ host: other.example }").match(name)
    assert before is not None
    assert before.known
    rule = recognising(entry).match(name)
    assert rule is not None
    assert not rule.deny


@pytest.mark.parametrize("pattern", ["'*.io'", "'**.io'", "'q*.io'"])
def test_they_give_way_to_all_that_is_denied(pattern: str) -> None:
    rule = recognising("ghcr", pattern).match("quay.io")
    assert rule is not None
    assert (rule.deny, rule.known) == (True, False)
    assert rule.origin == "p.yaml:3"


def test_ranks() -> None:
    """The kernel knows no order but that of the numbers."""
    rules = recognising("{ host: '**.zz' }, ghcr, { host: 'a-*.example' }", "b.example")
    ranks = [rule.rank for rule in rules.names]
    assert ranks == list(range(1, len(ranks) + 1))
    assert max(rule.rank for rule in rules.names if rule.known) < min(
        rule.rank for rule in rules.names if not rule.known
    )
    assert len({rule.pattern.text for rule in rules.names}) == len(rules.names)


NAMES = [
    "quay.io",
    "ghcr.io",
    "a.ghcr.io",
    "registry-1.docker.io",
    "docker.io",
    "1.dkr.ecr.eu-west-1.amazonaws.com",
    "eu.gcr.io",
    "a.b.example",
    "mcr.microsoft.com",
    "acme.azurecr.io",
]
PATTERNS = [
    *NAMES,
    "*.io",
    "**.io",
    "*.docker.io",
    "**.com",
    "q*.io",
    "*.dkr.ecr.*.amazonaws.com",
    "*.gcr.io",
]


def reference(rules: RuleSet, name: str) -> NameRule | None:
    """What the kernel finds: of all rules that match, the one with the greatest number."""
    found = [rule for rule in rules.names if rule.pattern.matches(name)]
    return max(found, key=lambda rule: rule.rank, default=None)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=6, unique=True),
    st.lists(st.sampled_from(PATTERNS), max_size=4, unique=True),
)
def test_matching_agrees_with_the_ranks(entries: list[str], denied: list[str]) -> None:
    registries = ", ".join(f"{{ host: '{entry}' }}" for entry in entries)
    rules = recognising(registries, ", ".join(f"'{pattern}'" for pattern in denied))
    plain = parse(
        f"version: 1\nregistries: [{registries}]\n"
        + (f"denied: [{', '.join(repr(pattern) for pattern in denied)}]\n" if denied else "")
    )
    strict = compile_rules(plain, CATALOGUE)
    for name in NAMES:
        rule = rules.match(name)
        assert rule == reference(rules, name)
        said = strict.match(name)
        if said is not None:  # what the policy says is not changed by what the catalogue knows
            assert rule is not None
            assert (rule.pattern, rule.deny, rule.ports) == (said.pattern, said.deny, said.ports)
        else:
            assert rule is None or rule.known


def test_kinds_of_known_rules_are_all_found() -> None:
    kinds = {rule.pattern.kind for rule in known(recognising("{ host: a.example }")).values()}
    assert {PatternKind.EXACT, PatternKind.GLOB} <= kinds

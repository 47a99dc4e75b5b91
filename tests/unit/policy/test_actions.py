"""`actions` of a registry, and `docker:`."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.actions import ALL_ACTIONS, Action
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.rules import RuleSet, compile_rules

PULL, PUSH, LOGIN = Action.PULL, Action.PUSH, Action.LOGIN


def rules_of(text: str) -> RuleSet:
    policy = parse_policy(f"version: 1\nregistries:\n{text}".encode(), "p.yaml")
    return compile_rules(policy, load_catalogue())


def actions(rules: RuleSet, name: str) -> tuple[Action, ...]:
    rule = rules.match(name)
    assert rule is not None
    return rule.actions


def test_all_without_any() -> None:
    rules = rules_of("  - ghcr\n  - id: quay\n  - host: a.example\n  - address: 10.0.0.1\n")
    for name in ("ghcr.io", "quay.io", "a.example"):
        assert actions(rules, name) is ALL_ACTIONS
    assert rules.addresses[0].actions is ALL_ACTIONS


def test_of_each_kind_of_entry() -> None:
    rules = rules_of(
        "  - { id: ghcr, actions: [pull] }\n"
        "  - { host: a.example, also: [b.example], actions: [push, pull] }\n"
        "  - { address: 10.0.0.1, actions: [login] }\n"
    )
    assert actions(rules, "ghcr.io") == actions(rules, "pkg-containers.githubusercontent.com") == (PULL,)
    assert actions(rules, "a.example") == actions(rules, "b.example") == (PULL, PUSH)
    assert rules.addresses[0].actions == (LOGIN,)


def test_entries_of_one_host_add_up() -> None:
    rules = rules_of("  - { id: ghcr, actions: [pull] }\n  - { host: ghcr.io, actions: [login] }\n")
    assert actions(rules, "ghcr.io") == (PULL, LOGIN)
    rules = rules_of("  - { id: ghcr, actions: [pull] }\n  - { host: ghcr.io }\n")
    assert actions(rules, "ghcr.io") is ALL_ACTIONS


def test_more_specific_decides() -> None:
    rules = rules_of("  - host: '*.a.example'\n  - { host: b.a.example, actions: [pull] }\n")
    assert actions(rules, "b.a.example") == (PULL,)


def test_denied_has_none() -> None:
    rules = rules_of("  - ghcr\ndenied: [ghcr.io]\n")
    assert actions(rules, "ghcr.io") == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "  - { host: a.example, actions: [pul] }\n",
            "3: registries[0].actions[0]: 'pul' is not one of the choices, did you mean pull?",
            id="near",
        ),
        pytest.param(
            "  - { id: ghcr, actions: [delete] }\n",
            "3: registries[0].actions[0]: 'delete' is not one of the choices, write pull, push or login",
            id="other",
        ),
        pytest.param(
            "  - { host: a.example, actions: [] }\n",
            "3: registries[0].actions: the list is empty, write at least one item, such as [pull]",
            id="empty",
        ),
        pytest.param(
            "  - { host: a.example, actions: pull }\n",
            "3: registries[0].actions: 'pull' where a list belongs, write a list, such as [pull]",
            id="text",
        ),
        pytest.param(
            "  - { host: a.example, actions: [pull, pull] }\n",
            "3: registries[0].actions: pull is given twice, write each action once",
            id="twice",
        ),
        pytest.param(
            "  - { host: a.example, action: [pull] }\n",
            "3: registries[0].action: 'action' is not a known key, did you mean actions?",
            id="key",
        ),
        pytest.param(
            "  - { id: ghrc, actions: [pull] }\n",
            "3: registries[0].id: 'ghrc' is not in the catalogue, did you mean ghcr?",
            id="id",
        ),
        pytest.param(
            "  - { id: ghcr, host: a.example }\n",
            "3: registries[0]: one entry has id and host, write a list item for each",
            id="two",
        ),
        pytest.param(
            "  - ghcr\n  - { id: ghcr, actions: [pull] }\n",
            "4: registries[1].id: catalogue id 'ghcr' is already on line 3, keep one of them",
            id="again",
        ),
        pytest.param(
            "  - ghcr\ndocker: true\n",
            "4: docker: true where a mapping belongs, write docker: { authorization: true }",
            id="docker",
        ),
        pytest.param(
            "  - ghcr\ndocker: { authorization: 1 }\n",
            "4: docker.authorization: the number 1 is not a yes or no, write true or false",
            id="authorization",
        ),
        pytest.param(
            "  - ghcr\ndocker: { authorisation: true }\n",
            "4: docker.authorisation: 'authorisation' is not a known key, did you mean authorization?",
            id="spelling",
        ),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        rules_of(text)
    assert str(caught.value) == f"p.yaml:{message}"


def test_the_plugin_is_off_by_default() -> None:
    assert default_policy().docker.authorization is False
    policy = parse_policy(b"version: 1\nregistries: [ghcr]\ndocker: { authorization: true }\n", "p.yaml")
    assert policy.docker.authorization is True

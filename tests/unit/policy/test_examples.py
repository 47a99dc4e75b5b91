"""The examples are right, and so are those in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, load_policy, parse_policy
from ram_ebpf.policy.model import HostEntry
from ram_ebpf.policy.rules import compile_rules
from ram_ebpf.policy.scope import Posture
from ram_ebpf.policy.scope_rules import rules_of_scopes

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
DOCUMENTATION = (ROOT / "docs" / "policy.md").read_text()
BLOCKS = re.findall(r"^```yaml\n(version:.*?)^```$", DOCUMENTATION, re.DOTALL | re.MULTILINE)
ERRORS = re.findall(
    r"^```yaml wrong\n(.*?)^```\n+```text\n(.*?)^```$", DOCUMENTATION, re.DOTALL | re.MULTILINE
)


def test_acme_uses_every_key() -> None:
    policy = load_policy(ROOT / "examples" / "acme.yaml")
    # lease_seconds is for fail: open, which an example had better not say.
    assert policy.model_fields_set == set(type(policy).model_fields) - {"lease_seconds"}
    assert policy.dns.model_fields_set == set(type(policy.dns).model_fields)
    assert policy.docker.model_fields_set == set(type(policy.docker).model_fields)
    assert policy.recognition.model_fields_set == set(type(policy.recognition).model_fields)
    assert policy.refusals.model_fields_set == set(type(policy.refusals).model_fields)
    assert policy.metrics is not None
    assert policy.metrics.model_fields_set == {"socket", "mode", "group"}
    assert policy.log.model_fields_set == set(type(policy.log).model_fields)
    assert policy.export.model_fields_set == set(type(policy.export).model_fields)
    assert {scope.posture for scope in policy.scopes} == set(Posture)
    assert any(scope.registries for scope in policy.scopes)
    assert any(
        entry.model_fields_set == set(HostEntry.model_fields)
        for entry in policy.registries
        if isinstance(entry, HostEntry)
    )
    assert len(rules_of_scopes(policy, load_catalogue())) == 3
    rules = compile_rules(policy, load_catalogue())
    for name in (
        "registry-1.docker.io",
        "ghcr.io",
        "s3.corp.example",
        "1.dkr.ecr.eu-west-1.amazonaws.com",
        "a.b.mirrors.corp.example",
        "edge-7.registry.corp.example",
    ):
        assert rules.allows(name) is not None
    for name in ("1.dkr.ecr.us-east-1.amazonaws.com", "mirrors.corp.example", "quay.io"):
        assert rules.match(name) is None
    for name in ("public.mirrors.corp.example", "a.sandbox.mirrors.corp.example"):
        rule = rules.match(name)
        assert rule is not None
        assert rule.deny
        assert rules.allows(name) is None


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_loads(path: Path) -> None:
    assert rules_of_scopes(load_policy(path), load_catalogue())


def test_minimal_is_the_default() -> None:
    minimal = load_policy(ROOT / "examples" / "minimal.yaml")
    assert minimal.model_dump() == default_policy().model_dump()


def test_documentation_has_examples() -> None:
    assert len(BLOCKS) >= 2
    assert len(ERRORS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_documented_policy_loads(block: str) -> None:
    assert rules_of_scopes(parse_policy(block.encode(), "policy.yaml"), load_catalogue())


@pytest.mark.parametrize(("block", "message"), ERRORS, ids=range(len(ERRORS)))
def test_documented_error(block: str, message: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        parse_policy(block.encode(), "policy.yaml")
    assert str(caught.value) == message.strip()


def test_documentation_names_the_whole_catalogue() -> None:
    for registry in load_catalogue().registries:
        assert f"`{registry.id}`" in DOCUMENTATION

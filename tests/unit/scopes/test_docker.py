"""Which containers a scope means."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from ram_ebpf.policy.messages import explain
from ram_ebpf.policy.scope import ContainerScope, Scope
from ram_ebpf.scopes.docker import RunningContainer, matches

IDENTIFIER = "0123456789abcdef" * 4
CONTAINER = RunningContainer(IDENTIFIER, "web", (("empty", ""), ("team", "builds"), ("x", "a=b")), 42)


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("web", True),
        ("we", False),
        ("webs", False),
        ("Web", False),
        (IDENTIFIER, True),
        (IDENTIFIER[:12], True),
        (IDENTIFIER[:11], False),
        (IDENTIFIER[1:20], False),
        ("label=team", True),
        ("label=team=builds", True),
        ("label=team=build", False),
        ("label=team=", False),
        ("label=empty=", True),
        ("label=x=a=b", True),
        ("label=teams", False),
    ],
)
def test_matches(wanted: str, meant: bool) -> None:
    assert matches(CONTAINER, wanted) is meant


@pytest.mark.parametrize(
    "text", ["web", "a.b_c-d", IDENTIFIER, "label=team", "label=a/b.c=d e".replace(" ", "")]
)
def test_valid(text: str) -> None:
    scope = TypeAdapter(Scope).validate_python({"container": text})
    assert isinstance(scope, ContainerScope)
    assert scope.target == text


@pytest.mark.parametrize("text", ["", "-a", "a b", "label=", "label==x", "a/b", "label=a\nb"])
def test_invalid(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Scope).validate_python({"container": text})
    _, problem, cure = explain(caught.value.errors()[0])
    assert "the name, identifier or label of a container" in problem
    assert cure == "write one, such as buildkit0 or label=team=builds"

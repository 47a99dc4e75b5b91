"""`connections:` and `sni`, whether the name that a connection begins with is read."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.connections import Connections, Earlier, ServerName
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.registry import HostEntry
from ram_ebpf.policy.rules import RuleSet, compile_rules

HEAD = "version: 1\nregistries: [docker-hub]\n"


def connections(text: str) -> Connections:
    return parse_policy(f"{HEAD}connections: {text}\n".encode(), "p.yaml").connections


def rules(registries: str) -> RuleSet:
    return compile_rules(
        parse_policy(f"version: 1\nregistries:\n{registries}".encode(), "p.yaml"), load_catalogue()
    )


def test_default() -> None:
    usual = Connections(read_names=True, earlier=Earlier.ALLOW)
    assert default_policy().connections == usual
    assert connections("{}") == usual


def test_values() -> None:
    assert connections("{ read_names: false, earlier: cut }") == Connections(
        read_names=False, earlier=Earlier.CUT
    )


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("true", "3: connections: true where a mapping belongs, write connections: { read_names: true }"),
        ("{ names: true }", "3: connections.names: 'names' is not a known key"),
        ("{ read_names: check }", "3: connections.read_names: 'check' is not a yes or no"),
        ("{ earlier: deny }", "3: connections.earlier: 'deny' is not one of the choices, write allow or cut"),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        connections(text)
    assert error in str(caught.value)


def test_server_name() -> None:
    policy = parse_policy(
        b"version: 1\nregistries:\n  - host: a.test\n    sni: optional\n  - host: b.test\n", "p.yaml"
    )
    entries = [entry.sni for entry in policy.registries if isinstance(entry, HostEntry)]
    assert entries == [ServerName.OPTIONAL, ServerName.REQUIRED]


def test_server_name_of_rules() -> None:
    found = rules(
        "  - host: a.test\n    sni: optional\n    also: [b.test, c.test]\n"
        "  - host: c.test\n  - host: d.test\n"
    )
    assert {str(rule.pattern): rule.unnamed for rule in found.names} == {
        "a.test": True,
        "b.test": True,
        "c.test": True,
        "d.test": False,
    }

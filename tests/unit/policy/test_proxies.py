"""`proxies:`, by which what is allowed may be reached as well."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import RuleSet, compile_rules

HEAD = "version: 1\nregistries:\n  - host: registry.test\n  - address: 10.0.0.0/24\n    ports: [443, 5000]\n"


def rules(text: str) -> RuleSet:
    return compile_rules(parse_policy(f"{HEAD}{text}".encode(), "p.yaml"), load_catalogue())


def test_rules() -> None:
    found = rules(
        "proxies:\n"
        "  - host: proxy.test\n    ports: [8080, 3128]\n"
        "  - address: 10.0.0.9\n    ports: [3128]\n"
        "  - address: 10.0.0.0/24\n    ports: [3128]\n"
    )
    rule = found.match("proxy.test")
    assert rule is not None
    assert (rule.proxy, rule.private, rule.ports, rule.actions) == (True, True, (3128, 8080), ())
    assert rule.origin == "p.yaml:7"
    assert found.allows("proxy.test") is None  # as a registry
    assert "proxy.test" in found.exact_names()  # whose addresses have to be known
    assert [(str(rule), rule.proxy, rule.ports) for rule in found.addresses] == [
        ("10.0.0.0/24 (p.yaml:4)", False, (443, 5000)),
        ("10.0.0.9/32 (p.yaml:9)", True, (3128,)),
        ("10.0.0.0/24 (p.yaml:11)", True, (3128,)),
    ]


def test_denied() -> None:
    found = rules("proxies: [{ host: proxy.test, ports: [3128] }]\ndenied: [proxy.test]\n")
    rule = found.match("proxy.test")
    assert rule is not None
    assert (rule.deny, rule.proxy) == (True, False)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("proxies: []", "6: proxies: the list is empty, write at least one item"),
        ("proxies: [proxy.test]", "6: proxies[0]: 'proxy.test' where a proxy belongs, write host:"),
        ("proxies: [{ ports: [1] }]", "6: proxies[0]: the entry has neither host nor address"),
        (
            "proxies: [{ host: a.test, address: 10.0.0.1, ports: [1] }]",
            "6: proxies[0]: one entry has host and address, write a list item for each",
        ),
        ("proxies: [{ host: a.test }]", "6: proxies[0]: ports is missing, write ports: [3128]"),
        ("proxies: [{ host: a.test, ports: [0] }]", "6: proxies[0].ports[0]: the number 0 is not"),
        ("proxies: [{ host: a.test, port: 1 }]", "'port' is not a known key, did you mean ports?"),
        ("proxies: [{ host: http://a.test, ports: [1] }]", "6: proxies[0].host: 'http://a.test' is a URL"),
        (
            "proxies: [{ host: registry.test, ports: [3128] }]",
            "6: proxies[0]: host registry.test is a registry as well, by p.yaml:3, "
            "give the proxy a name of its own, or write its address",
        ),
        (
            "proxies: [{ address: 10.0.0.0/24, ports: [3128, 5000] }]",
            "6: proxies[0]: port 5000 of 10.0.0.0/24 is a registry's as well, by p.yaml:4, "
            "remove it from one of them",
        ),
        (
            "proxies: [{ host: a.test, ports: [1] }, { host: A.test., ports: [2] }]",
            "6: proxies[1].host: proxy a.test is already on line 6, keep one entry with all the ports",
        ),
        (
            "proxies: [{ host: a.test, ports: [1] }]\nconnections: { read_names: false }",
            "there are proxies, and connections.read_names is false, remove one of them",
        ),
    ],
)
def test_errors(text: str, error: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        rules(text + "\n")
    assert error in str(caught.value)

"""`recognition:`, how registries are recognised that the policy says nothing about."""

from __future__ import annotations

import pytest

from ram_ebpf.policy.errors import PolicyErrors
from ram_ebpf.policy.loader import default_policy, parse_policy
from ram_ebpf.policy.recognition import Recognition, Unknown

HEAD = "version: 1\nregistries: [ghcr]\n"


def recognition(text: str) -> Recognition:
    return parse_policy(f"{HEAD}recognition: {text}\n".encode(), "p.yaml").recognition


def test_default() -> None:
    usual = Recognition(unknown=Unknown.PROBE, registry_ports=(5000,), unknown_ports=(80, 443, 8080, 8443))
    assert default_policy().recognition == usual
    assert recognition("{}") == usual


@pytest.mark.parametrize("unknown", Unknown)
def test_unknown(unknown: Unknown) -> None:
    assert recognition(f"{{ unknown: {unknown.value} }}").unknown is unknown


def test_ports() -> None:
    found = recognition("{ registry_ports: [5000, 5001], unknown_ports: [443] }")
    assert (found.registry_ports, found.unknown_ports) == ((5000, 5001), (443,))


def test_no_ports() -> None:
    """Then nothing is a registry's by its port, and nothing is asked."""
    found = recognition("{ registry_ports: [], unknown_ports: [] }")
    assert (found.registry_ports, found.unknown_ports) == ((), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            "probe",
            "3: recognition: 'probe' where a mapping belongs, write recognition: { unknown: probe }",
            id="text",
        ),
        pytest.param(
            "",
            "3: recognition: nothing where a mapping belongs, write recognition: { unknown: probe }",
            id="nothing",
        ),
        pytest.param(
            "{ unknown: ask }",
            "3: recognition.unknown: 'ask' is not one of the choices, write probe, allow or deny",
            id="unknown",
        ),
        pytest.param(
            "{ unknown: prob }",
            "3: recognition.unknown: 'prob' is not one of the choices, did you mean probe?",
            id="unknown near",
        ),
        pytest.param(
            "{ ports: [5000] }",
            "3: recognition.ports: 'ports' is not a known key, the keys known here: "
            "unknown, registry_ports, unknown_ports",
            id="key",
        ),
        pytest.param(
            "{ registry_port: [5000] }",
            "3: recognition.registry_port: 'registry_port' is not a known key, did you mean registry_ports?",
            id="key near",
        ),
        pytest.param(
            "{ registry_ports: 5000 }",
            "3: recognition.registry_ports: the number 5000 where a list belongs, "
            "write a list, such as [443]",
            id="number",
        ),
        pytest.param(
            "{ registry_ports: }",
            "3: recognition.registry_ports: the list is empty, write at least one item, such as [443]",
            id="ports without a value",
        ),
        pytest.param(
            "{ registry_ports: [0] }",
            "3: recognition.registry_ports[0]: the number 0 is not a port, write a number from 1 to 65535",
            id="port",
        ),
        pytest.param(
            "{ unknown_ports: [443, 443] }",
            "3: recognition.unknown_ports: port 443 is given twice, write each port once",
            id="twice",
        ),
        pytest.param(
            "{ unknown_ports: [1, 2, 3, 4, 5, 6, 7, 8, 9] }",
            "3: recognition.unknown_ports: the list has 9 items, write 8 at most",
            id="too many",
        ),
        pytest.param(
            "{ registry_ports: [8443, 443] }",
            "3: recognition: port 443 is in registry_ports and in unknown_ports, keep it in one of them: "
            "what goes to registry_ports is refused without asking",
            id="in both",
        ),
    ],
)
def test_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        recognition(text)
    assert [str(error) for error in caught.value.errors] == [f"p.yaml:{message}"]


def test_ports_of_both_that_differ() -> None:
    found = recognition("{ registry_ports: [443], unknown_ports: [80] }")
    assert (found.registry_ports, found.unknown_ports) == ((443,), (80,))

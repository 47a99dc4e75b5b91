"""What is said to whom, and what is signed for whom."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from ram_ebpf.daemon import responding
from ram_ebpf.daemon.history import NameHistory
from ram_ebpf.daemon.responding import Answers, Signer, ports_of
from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.answering import Refused
from ram_ebpf.dataplane.tables import Tables
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import RuleSet, compile_rules
from ram_ebpf.responder import certificates
from ram_ebpf.responder.authority import Authority, excluded_names
from ram_ebpf.responder.channel import Question

POLICY = b"""\
version: 1
organization: acme
message: Ask platform@acme.example to allow it.
registries:
  - host: good.example
    ports: [443, 5001]
denied: ["*.bad.example"]
recognition: { registry_ports: [5005] }
"""
OTHER = POLICY.replace(b"good.example", b"elsewhere.example")
CLIENT = ("127.0.0.1", 40000)
REFUSED = Refused(ip_address("192.0.2.1"), 443, 1, abi.Reason.DENIED_UNKNOWN_ADDRESS)


def rules_of(policy: bytes) -> RuleSet:
    return compile_rules(parse_policy(policy, "policy.yaml"), load_catalogue())


class Led:
    """In the place of the kernel's map: one connection."""

    def __init__(self, refused: Refused | None) -> None:
        self.refused = refused

    def take(self, client: object, port: int) -> Refused | None:
        taken = self.refused if (str(client), port) == CLIENT else None
        self.refused = None
        return taken


def make_authority(*domains: str) -> Authority:
    key = certificates.new_key()
    made = certificates.authority_certificate("acme", key, excluded_names(domains), 10)
    return Authority(made, key)


def answers(
    refused: Refused | None, signer: Signer | None = None, history: NameHistory | None = None
) -> Answers:
    tables = Tables(rules_of(POLICY), (1, 2, 3, 4))
    return Answers(
        parse_policy(POLICY, "policy.yaml"),
        Led(refused),  # type: ignore[arg-type]
        lambda: (rules_of(POLICY), rules_of(OTHER)),
        lambda number: tables,
        NameHistory(),
        signer,
    )


def signer(*excluded: str) -> Signer:
    return Signer(make_authority(*excluded), certificates.new_key().public_key())


def ask(
    name: str | None, refused: Refused | None = REFUSED, its_signer: Signer | None = None
) -> tuple[str, int]:
    reply = answers(refused, its_signer).reply(Question(1, *CLIENT, name))
    return reply.text, len(reply.chain)


def test_texts() -> None:
    assert ask("Evil.Example")[0] == (
        "Access to evil.example is blocked by acme's registry policy (rule: none). "
        "Ask platform@acme.example to allow it."
    )
    assert "(rule: *.bad.example (policy.yaml:" in ask("a.bad.example")[0]
    assert "is allowed by the registry policy" in ask("good.example")[0]
    assert "but not at 192.0.2.1" in ask("good.example")[0]
    wrong_port = REFUSED._replace(port=80, reason=abi.Reason.DENIED_PORT)
    assert "but not on port 80" in ask("good.example", wrong_port)[0]
    assert ask(None)[0].startswith("Access to 192.0.2.1 is blocked")
    assert ask("not a name")[0].startswith("Access to 192.0.2.1 is blocked")
    assert ask(None, None)[0].startswith("Access to this host is blocked")


@pytest.mark.parametrize(
    ("name", "signed"),
    [
        pytest.param("evil.example", 2, id="refused"),
        pytest.param("a.bad.example", 2, id="denied"),
        pytest.param("good.example", 0, id="allowed"),
        pytest.param("GOOD.example.", 0, id="allowed, otherwise written"),
        pytest.param("elsewhere.example", 0, id="allowed in another scope"),
        pytest.param("out.example", 0, id="excluded"),
        pytest.param("a.out.example", 0, id="below what is excluded"),
        pytest.param("localhost", 0, id="one label"),
        pytest.param("*.example", 0, id="a wildcard"),
        pytest.param("not a name", 0, id="no name"),
        pytest.param(None, 0, id="none"),
    ],
)
def test_what_is_signed(name: str | None, signed: int) -> None:
    assert ask(name, REFUSED, signer("out.example"))[1] == signed


def test_nothing_is_signed_that_was_not_refused() -> None:
    assert ask("evil.example", None, signer())[1] == 0
    assert ask("evil.example", REFUSED, None)[1] == 0


@pytest.mark.parametrize("client", ["", "x", "10.0.0.1", "::1", "::1%lo"])
def test_other_clients(client: str) -> None:
    reply = answers(REFUSED, signer()).reply(Question(1, client, 40000, "evil.example"))
    assert reply.chain == ()


def test_certificates_are_shown_again_and_few_are_kept() -> None:
    """A name each from a million clients costs no more than so many."""
    its = signer()
    first = its.chain("a.example")
    assert its.chain("a.example") == first
    made = sum(bool(its.chain(f"n{number}.example")) for number in range(3000))
    assert len(its) <= responding._MOST_SIGNED
    assert made < 1000  # the rest is told by the message's name


def test_ports() -> None:
    ports = ports_of(parse_policy(POLICY, "policy.yaml"), [rules_of(POLICY)])
    assert {80, 443, 5000, 5001, 5005, 8080, 8443} == ports
    odd = POLICY.replace(b"5001", b"53")
    assert 53 not in ports_of(parse_policy(odd, "policy.yaml"), [rules_of(odd)])

"""Clients that follow CNAME records themselves: they may ask for what an allowed name leads to."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import pytest
from scapy.layers.inet import TCP

from ram_ebpf.dataplane import abi, clock
from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.clock import NANOSECONDS
from ram_ebpf.dataplane.settings import Settings
from ram_ebpf.policy.rules import NameRule

from . import messages as m
from .exchanges import (
    DENIED_NAMES,
    NOTHING,
    ONE,
    REGISTRIES,
    SIX,
    TWO,
    ask,
    check,
    exchange,
    many,
    opened,
    play,
    tell,
)
from .messages import Datagram, address, cname, hint, service, wire
from .support import Bench, ip

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

CDN, EDGE = "cdn.example", "edge.example"


def leads(source: str = m.NAME, target: str = CDN, ttl: int = 300) -> tuple[Datagram, ...]:
    """An exchange in which a name's CNAME record comes alone."""
    return ask(source), tell(cname(target, ttl=ttl), name=source, counted=Reason.DNS_ALIAS)


def asks(
    name: str, *answers: bytes, counted: Reason = Reason.DNS_LEARNED, qtype: int = m.A
) -> Sequence[Datagram]:
    """An exchange about a name."""
    return ask(name, qtype), tell(*answers, name=name, qtype=qtype, counted=counted)


def unlisted(name: str = CDN) -> Sequence[Datagram]:
    """An exchange about a name to which no rule, and no alias, applies."""
    return asks(name, address(ONE), counted=Reason.DNS_NOT_LISTED)


INHERITED = [
    pytest.param((*leads(), *asks(CDN, address(ONE))), opened({ONE: 300}), id="from a CNAME record"),
    pytest.param(
        (*leads(), *asks(CDN, address(SIX), qtype=m.AAAA), *asks(CDN, address(ONE))),
        opened({ONE: 300, SIX: 300}),
        id="by each query, of any type",
    ),
    pytest.param((*leads(), *asks("CdN.eXaMpLe", address(ONE))), opened({ONE: 300}), id="in any letter case"),
    pytest.param(
        (*leads(), *asks(CDN, address(ONE, ttl=20))),
        opened({ONE: 20}),
        id="for the time to live of the address",
    ),
    pytest.param(
        (*leads(ttl=20), *asks(CDN, address(ONE))),
        opened({ONE: 300}),
        id="for longer than the CNAME record stays valid: the client asked in time",
    ),
    pytest.param(
        (*leads("ports.test"), *asks(CDN, address(ONE))),
        opened({ONE: 300}, "ports.test"),
        id="with the ports of the rule",
    ),
    pytest.param(
        (*leads(), *asks(CDN, cname(EDGE), address(ONE, owner=wire(EDGE)))),
        opened({ONE: 300}),
        id="and a chain that goes on",
    ),
    pytest.param(
        (*leads(), *leads(CDN, EDGE), *asks(EDGE, address(ONE))),
        opened({ONE: 300}),
        id="two one behind the other",
    ),
    pytest.param(
        (
            ask(),
            tell(cname("a.example"), cname(EDGE, wire("a.example")), counted=Reason.DNS_ALIAS),
            *asks(EDGE, address(ONE)),
        ),
        opened({ONE: 300}),
        id="from the end of a chain",
    ),
    pytest.param(
        (
            ask(),
            tell(cname("a.example"), cname(EDGE, wire("a.example")), counted=Reason.DNS_ALIAS),
            *unlisted("a.example"),
        ),
        NOTHING,
        id="not from the middle of a chain",
    ),
    pytest.param(
        (
            ask(qtype=m.HTTPS),
            tell(service(target=EDGE), qtype=m.HTTPS, counted=Reason.DNS_ALIAS),
            *asks(EDGE, address(ONE)),
        ),
        opened({ONE: 300}),
        id="from an HTTPS record",
    ),
    pytest.param(
        (
            ask(qtype=m.HTTPS),
            tell(service(target=EDGE, priority=0), qtype=m.HTTPS, counted=Reason.DNS_ALIAS),
            ask(EDGE, m.HTTPS),
            tell(service(hint(ONE)), name=EDGE, qtype=m.HTTPS),
        ),
        opened({ONE: 300}),
        id="from an HTTPS record in AliasMode, by an HTTPS query",
    ),
    pytest.param(
        (
            ask(),
            tell(cname(CDN), flags=m.RESPONSE | m.TC, counted=Reason.DNS_TRUNCATED),
            *asks(CDN, address(ONE)),
        ),
        opened({ONE: 300}),
        id="from a truncated reply",
    ),
    pytest.param((*leads(), *unlisted(EDGE)), NOTHING, id="not by another name"),
    pytest.param((*leads(), *unlisted(f"x.{CDN}")), NOTHING, id="not by a child of the target"),
    pytest.param((*leads(), *unlisted("example")), NOTHING, id="not by the target's parent"),
    pytest.param(
        (
            ask(),
            tell(cname(CDN), address(ONE, owner=wire(CDN))),
            *asks(CDN, address(TWO), counted=Reason.DNS_NOT_LISTED),
        ),
        opened({ONE: 300}),
        id="not where the reply had the addresses",
    ),
    pytest.param(
        (
            *asks("evil.example", cname(CDN), counted=Reason.DNS_NOT_LISTED),
            *unlisted(),
        ),
        NOTHING,
        id="not from a name that is not listed",
    ),
    pytest.param(
        (
            ask(),
            tell(cname(CDN), cname(EDGE, wire("other.example")), counted=Reason.DNS_ALIAS),
            *unlisted(EDGE),
        ),
        NOTHING,
        id="not from another name's CNAME record",
    ),
]

# Of rules for the target itself; the alias leads to registry.test, with port 443.
WITH_A_RULE = [
    pytest.param(
        (*leads(target="exact.deep.test"), *asks("exact.deep.test", address(ONE))),
        {**opened({ONE: 300}), **opened({ONE: 300}, "exact.deep.test")},
        id="a rule with other ports: those of both",
    ),
    pytest.param(
        (*leads(target="other.test"), *asks("other.test", address(ONE))),
        opened({ONE: 300}, "other.test"),
        id="a rule with the same ports",
    ),
    pytest.param(
        (*leads(target="exact.rule.test"), *unlisted("exact.rule.test")), NOTHING, id="a deny rule wins"
    ),
    pytest.param(
        (*leads(target="a.never.rule.test"), *unlisted("a.never.rule.test")),
        NOTHING,
        id="a deny rule for all below a domain wins",
    ),
    pytest.param(
        (*leads(target="private.test"), *asks("private.test", address("10.1.2.3"))),
        opened({"10.1.2.3": 300}, "private.test"),
        id="a rule that expects private addresses",
    ),
    pytest.param(
        (*leads("private.test"), *asks(CDN, address("10.1.2.3"))),
        opened({"10.1.2.3": 300}, "private.test"),
        id="none, and the alias expects private addresses",
    ),
]


@pytest.mark.parametrize(("steps", "expected"), INHERITED)
def test_rule_is_inherited(
    bench: Bench, steps: Sequence[Datagram], expected: dict[tuple[str, int], tuple[int, str]]
) -> None:
    check(bench, tuple(steps), expected)


@pytest.mark.parametrize(("steps", "expected"), WITH_A_RULE)
def test_target_with_a_rule(
    bench: Bench, steps: Sequence[Datagram], expected: dict[tuple[str, int], tuple[int, str]]
) -> None:
    check(bench, tuple(steps), expected)


@pytest.mark.parametrize("name", ["exact.deep.test", "eight.test"])
@pytest.mark.parametrize("count", [1, 9, 10, 11, 12, 40, 150])
def test_many_addresses_of_a_target_with_a_rule(bench: Bench, name: str, count: int) -> None:
    """Each is opened for both rules, also where one run of the program ends between the two."""
    rule = bench.plane.tables.rule(bench.rule_of(name))
    assert isinstance(rule, NameRule)
    play(bench, *leads(target=name))
    play(bench, *asks(name, *map(address, many(count))))
    assert set(bench.openings()) == {(text, ports) for text in many(count) for ports in ((443,), rule.ports)}
    assert not any(opening.flags for opening in bench.openings().values())


def test_address_that_is_private_for_one_of_two_rules(bench: Bench) -> None:
    play(bench, *leads("private.test", target="exact.deep.test"))
    play(bench, *asks("exact.deep.test", address("10.1.2.3")))
    assert {ports: opening.flags for (_, ports), opening in bench.openings().items()} == {
        (443,): 0,
        (5000,): abi.OpeningFlag.PRIVATE,
    }
    assert bench.egress(ip("10.1.2.3") / TCP(dport=443, flags="S"))
    assert not bench.egress(ip("10.1.2.3") / TCP(dport=5000, flags="S"))
    assert bench.counted() == {Reason.ALLOWED_LEARNED: 1, Reason.DENIED_PRIVATE_ADDRESS: 1}


def test_alias_ends_with_its_time_to_live(bench: Bench) -> None:
    with bench.configured(Settings(maximum_ttl=1)):
        play(bench, *leads())
    play(bench, *asks(CDN, address(ONE)))
    time.sleep(1.1)
    play(bench, *asks(CDN, address(TWO), counted=Reason.DNS_NOT_LISTED))
    assert {text for text, _ in bench.learned()} == {ONE}


@pytest.mark.parametrize(
    ("ttls", "expected"),
    [
        pytest.param((60,), 60, id="of the link"),
        pytest.param((300, 60, 900), 60, id="of the shortest link"),
        pytest.param((0,), 1, id="at least the minimum"),
        pytest.param((0x7FFFFFFF,), 86400, id="at most the maximum"),
    ],
)
def test_time_of_an_alias(bench: Bench, ttls: Sequence[int], expected: int) -> None:
    names = [wire(f"n{number}.example") for number in range(len(ttls))]
    owners = [m.QUESTION, *names]
    answers = [cname(name, owner, ttl) for name, owner, ttl in zip(names, owners, ttls, strict=False)]
    before = clock.now_ns()
    play(bench, ask(), tell(*answers, counted=Reason.DNS_ALIAS))
    (alias,) = bench.aliases()
    assert before <= alias.expires_ns - expected * NANOSECONDS <= clock.now_ns()


def test_depth_is_limited(bench: Bench) -> None:
    """Names that lead to each other are followed 8 times, whoever runs their domains."""
    names = [m.NAME, *(f"n{number}.example" for number in range(1, abi.ALIAS_DEPTH_MAX + 2))]
    for depth, (source, target) in enumerate(itertools.pairwise(names), start=1):
        if depth <= abi.ALIAS_DEPTH_MAX:
            play(bench, *leads(source, target))
        else:
            # What it leads to is no longer remembered, but its own addresses still count.
            play(bench, *asks(source, cname(target), counted=Reason.DNS_NO_ADDRESS))
            play(bench, *unlisted(target))
            check(bench, tuple(asks(source, address(ONE))), opened({ONE: 300}))
    assert sorted(alias.depth for alias in bench.aliases()) == [*range(1, abi.ALIAS_DEPTH_MAX + 1)]


def test_name_with_a_rule_of_its_own_begins_anew(bench: Bench) -> None:
    """How many aliases led to it does not matter: it is allowed by itself, and so is what it leads to."""
    names = [m.NAME, *(f"n{number}.example" for number in range(1, abi.ALIAS_DEPTH_MAX)), "other.test"]
    for source, target in itertools.pairwise(names):
        play(bench, *leads(source, target))
    check(bench, (*leads("other.test", CDN), *asks(CDN, address(ONE))), opened({ONE: 300}, "other.test"))


def test_target_that_is_the_name_itself_changes_nothing(bench: Bench) -> None:
    """Some servers write the owner out as the target of an HTTPS record."""
    for _ in range(abi.ALIAS_DEPTH_MAX + 1):
        exchange(bench, ask(qtype=m.HTTPS), tell(service(target=m.NAME), qtype=m.HTTPS))
    bench.counted()
    check(bench, (*leads(), *asks(CDN, address(ONE))), opened({ONE: 300}))


def test_two_names_that_lead_to_one(bench: Bench) -> None:
    """Clients of both connect to what the target's addresses are."""
    play(bench, *leads(), *leads("ports.test"))
    play(bench, *asks(CDN, address(ONE)))
    assert bench.egress(ip(ONE) / TCP(dport=443, flags="S"))


def test_later_alias_does_not_shorten_the_time(bench: Bench) -> None:
    play(bench, *leads(ttl=300), *leads(ttl=20))
    (alias,) = bench.aliases()
    assert alias.expires_ns - clock.now_ns() > 200 * NANOSECONDS


def test_alias_of_one_scope_is_not_seen_in_another(bench: Bench) -> None:
    play(bench, *leads())
    play(bench, *unlisted(), scope=bench.other)
    assert bench.aliases(bench.other) == []
    check(bench, tuple(asks(CDN, address(ONE))), opened({ONE: 300}))

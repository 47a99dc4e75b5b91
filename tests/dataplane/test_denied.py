"""Names that the policy takes away from what it allows: of all that match the most specific decides."""

from __future__ import annotations

import pytest
from scapy.layers.inet import TCP

from ram_ebpf.dataplane.abi import Reason
from ram_ebpf.dataplane.settings import Settings

from . import messages as m
from .exchanges import DENIED_NAMES, NOTHING, ONE, REGISTRIES, TWO, ask, check, exchange, opened, play, tell
from .messages import address, cname, hint, service, wire
from .support import Bench, ip

__all__ = ["DENIED_NAMES", "REGISTRIES"]  # read by the fixture that loads the plane

# A name, and the pattern that allows it; none: it is denied.
NAMES = [
    pytest.param("a.rule.test", "**.rule.test", id="a name that nothing denies"),
    pytest.param("exact.rule.test", "", id="an exact name"),
    pytest.param("EXACT.Rule.Test", "", id="an exact name in another case"),
    pytest.param("x.exact.rule.test", "**.rule.test", id="a child of a denied name"),
    pytest.param("exact2.rule.test", "**.rule.test", id="a name that begins with a denied one"),
    pytest.param("notexact.rule.test", "**.rule.test", id="a name that ends in a denied label"),
    pytest.param("a.no.rule.test", "", id="one star"),
    pytest.param("a.b.no.rule.test", "**.rule.test", id="one star and two labels"),
    pytest.param("no.rule.test", "**.rule.test", id="one star and the parent itself"),
    pytest.param("again.no.rule.test", "again.no.rule.test", id="an exact name below a denied star"),
    pytest.param("img-7.no.rule.test", "img-*.no.rule.test", id="a glob that says more than a denied star"),
    pytest.param("a.never.rule.test", "", id="two stars and one label"),
    pytest.param("a.b.c.never.rule.test", "", id="two stars and three labels"),
    pytest.param("never.rule.test", "**.rule.test", id="two stars and the parent itself"),
    pytest.param("bad-7.rule.test", "", id="a glob in a label"),
    pytest.param("bad-.rule.test", "", id="a glob that stands for no character"),
    pytest.param("bad-7.a.rule.test", "**.rule.test", id="a glob does not reach over a label's end"),
    pytest.param("x.any.mid.rule.test", "", id="a star between labels"),
    pytest.param("y.any.mid.rule.test", "**.rule.test", id="a star between labels and another label"),
    pytest.param("both.rule.test", "", id="the same name allowed and denied"),
    pytest.param("a.level.rule.test", "", id="the same star allowed and denied"),
    pytest.param("good.star.rule.test", "*.star.rule.test", id="a star that allows"),
    pytest.param("evil.star.rule.test", "", id="an exact name below a star that allows"),
]


@pytest.mark.parametrize(("name", "pattern"), NAMES)
def test_name(bench: Bench, name: str, pattern: str) -> None:
    counted = Reason.DNS_LEARNED if pattern else Reason.DNS_NOT_LISTED
    steps = (ask(name), tell(address(ONE), name=name, counted=counted))
    check(bench, steps, opened({ONE: 300}, pattern) if pattern else NOTHING)


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "pattern"), NAMES)
def test_kernel_and_user_space_agree(bench: Bench, name: str, pattern: str) -> None:
    rule = bench.plane.tables.rules.allows(name)
    assert (rule.pattern.text if rule else "") == pattern


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "pattern"), NAMES)
def test_query_of_a_denied_name(bench: Bench, name: str, pattern: str) -> None:
    """It leaves, as any query for a name that is not listed does, unless the policy refuses those."""
    assert bench.egress(ask(name).frame())
    assert bool(bench.queries()) is bool(pattern)
    assert bool(bench.queries("unlisted")) is not bool(pattern)
    bench.counted()
    with bench.configured(Settings(allowed_names_only=True)):
        assert bench.egress(ask(name).frame()) is bool(pattern)
    reason = Reason.ALLOWED_RESOLVER if pattern else Reason.DENIED_QUERY_NAME
    assert bench.counted() == {reason: 1}


def test_https_query_of_a_denied_name(bench: Bench) -> None:
    name = "exact.rule.test"
    play(
        bench,
        ask(name, m.HTTPS),
        tell(service(hint(ONE)), name=name, qtype=m.HTTPS, counted=Reason.DNS_NOT_LISTED),
    )
    assert bench.learned() == {}


def test_denied_name_does_not_close_what_another_name_opened(bench: Bench) -> None:
    """Addresses are not denied, names are."""
    exchange(bench, ask(), tell(address(ONE)))
    exchange(bench, ask("exact.rule.test"), tell(address(ONE), address(TWO), name="exact.rule.test"))
    assert bench.egress(ip(ONE) / TCP(dport=443, flags="S"))
    assert not bench.egress(ip(TWO) / TCP(dport=443, flags="S"))


def test_denied_name_in_the_middle_of_an_allowed_names_chain(bench: Bench) -> None:
    """The name asked for decides: whoever runs it says whose addresses it has."""
    denied = wire("exact.rule.test")
    check(bench, (ask(), tell(cname(denied), address(ONE, owner=denied))), opened({ONE: 300}))


def test_denied_name_leads_nowhere(bench: Bench) -> None:
    play(
        bench,
        ask("exact.rule.test"),
        tell(cname("cdn.example"), name="exact.rule.test", counted=Reason.DNS_NOT_LISTED),
        ask("cdn.example"),
        tell(address(ONE), name="cdn.example", counted=Reason.DNS_NOT_LISTED),
    )
    assert bench.aliases() == []
    assert bench.learned() == {}

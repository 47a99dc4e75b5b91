"""Attacks by the answers of a genuine reply: broken ones, those of other names, and aliases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adversarial import lies, malformed
from tests.adversarial.actor import Actor
from tests.adversarial.field import Field, governed, tcp_connect
from tests.adversarial.lookups import (
    ask,
    assert_opens,
    assert_shut,
    assert_stays_shut,
    dns_line,
    give,
    is_open,
    name_of,
)
from tests.adversarial.packets import address_for, query
from tests.lab import topology
from tests.lab.lab import Lab
from tests.lab.rogue import RogueDns

core = pytest.mark.core

_CENTRAL = ("pointers-in-a-circle", "lying-count", "aside-behind")


@pytest.fixture(scope="module")
def policy() -> str:
    return f"""\
version: 1
registries:
  - host: "*.lies.test"
denied: [never.lies.test]
refusals:
  responder: off
resolvers: [{Lab.rogue_resolver}]
"""


@pytest.fixture(scope="module")
def other_scope(lab: Lab) -> Path:
    """A second place under the same policy."""
    return lab.new_cgroup("other-answers")


@pytest.fixture(scope="module")
def field(lab: Lab, policy: str, other_scope: Path) -> Iterator[Field]:
    """As in conftest.py, with two scopes and the resolver that lies."""
    with RogueDns(lab.dns.node, Path(lies.__file__)):
        with governed(lab, policy, "--log-dns", scopes=[lab.client_cgroup, other_scope]) as daemon:
            with Field(lab, daemon) as result:
                yield result


def cases(names: dict[str, object]) -> pytest.MarkDecorator:
    """Each by its name."""
    return pytest.mark.parametrize(
        "case", [pytest.param(name, marks=[core] if name in _CENTRAL else []) for name in names]
    )


@cases({**malformed.CASES})
def test_broken_reply(field: Field, case: str) -> None:
    """The kernel and the daemon read the same bytes, and perhaps one of them finds the address."""
    name = name_of(f"{case}.lies.test")
    address = give(field, name)
    ask(field, query(name))
    assert_stays_shut(field, address, 0.15)
    field.inside.reset()


def test_chain_of_pointers(field: Field) -> None:
    """A name by way of 200 pointers: where the kernel gives up, the daemon must not hang."""
    name = name_of("chain-of-pointers.lies.test")
    give(field, name)
    ask(field, query(name))
    field.inside.reset()


@cases({**malformed.ASIDE})
def test_answer_for_another_name(field: Field, case: str) -> None:
    """The honest address is there, and beside it the attacker's, for a name of the attacker's."""
    name = name_of(f"{case}.lies.test")
    address = give(field, name)
    evil = give(field, name + b"x")
    ask(field, query(name))
    assert_opens(field, address)
    assert_stays_shut(field, evil, 0.15)
    field.inside.reset()


def lead(field: Field, source: str, actor: Actor | None = None) -> None:
    """Asks for a name that is an alias."""
    start = len(field.daemon.lines())
    ask(field, query(name_of(source)), actor=actor)
    dns_line(field, start, "dns-alias", source)


@core
def test_alias(field: Field) -> None:
    """No attack: the target of an allowed name inherits its rule, and no other name does."""
    name, other = name_of("cdn.evil.test"), name_of("cdn-2.evil.test")
    address, shut = give(field, name), give(field, other)
    ask(field, query(name))
    assert_shut(field, address)
    lead(field, "to-cdn--evil--test.lies.test")
    ask(field, query(name))
    ask(field, query(other))
    tcp_connect(field.inside, address)
    assert_shut(field, shut)
    field.inside.reset()


def test_alias_that_has_ended(field: Field) -> None:
    """An allowed name led to the attacker's for a second; the attacker's name changes its address then."""
    name = name_of("moved.evil.test")
    address = give(field, name)
    lead(field, "to-moved--evil--test.lies.test")
    time.sleep(lies.BRIEF + 0.2)
    ask(field, query(name))
    assert_stays_shut(field, address, 0.1)
    field.inside.reset()


def test_alias_of_another_scope(field: Field, lab: Lab, other_scope: Path) -> None:
    """What a name leads to is learned in one scope and used in another one."""
    name = name_of("far.evil.test")
    address = give(field, name)
    lead(field, "to-far--evil--test.lies.test")
    with Actor(lab.client, other_scope) as other:
        ask(field, query(name), actor=other)
        assert not is_open(other, address)
    assert not is_open(field.inside, address)
    field.inside.reset()


def test_alias_of_an_unlisted_name(field: Field) -> None:
    """The attacker's name leads to another one of the attacker's, as an allowed one might."""
    name = name_of("led.evil.test")
    address = give(field, name)
    ask(field, query(name_of("to-led--evil--test.evil.test")))
    ask(field, query(name))
    assert_stays_shut(field, address, 0.1)
    field.inside.reset()


def test_alias_to_a_denied_name(field: Field) -> None:
    """The policy takes the name away, and an allowed one leads to it."""
    name = name_of("never.lies.test")
    address = give(field, name)
    ask(field, query(name_of("to-never--lies--test.lies.test")))
    ask(field, query(name))
    assert_stays_shut(field, address, 0.1)
    field.inside.reset()


def test_deep_aliases(field: Field) -> None:
    """From name to name, each in a query of its own, an allowed one leads as far as the attacker likes."""
    lead(field, "step0.lies.test")
    for number in range(1, 8):
        lead(field, f"step{number}.evil.test")
    start = len(field.daemon.lines())
    ask(field, query(name_of("step8.evil.test")))
    dns_line(field, start, "dns-no-address", "step8.evil.test")
    ask(field, query(name_of("step9.evil.test")))
    dns_line(field, start, "dns-not-listed", "step9.evil.test")
    field.inside.reset()


def test_afterwards(field: Field) -> None:
    """No attack: the next honest reply is learned, and the daemon has not stumbled."""
    name = name_of("after-answers.lies.test")
    address = give(field, name)
    ask(field, query(name))
    tcp_connect(field.inside, address)
    assert address_for(name) == address
    assert "Traceback" not in field.daemon.said()
    assert topology.ROGUE_RESOLVER in field.daemon.lines()[0]["resolvers"]
    field.inside.reset()

"""The programs against the model of reference.py, which reads the same octets with dnspython.

`python -m tests.dataplane.differential --replay` looks at one exchange again, and says how.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.abi import Reason

from . import messages as m
from .differential import Differential, run
from .messages import address, labels, message, question, record, wire
from .reference import MAX_STEPS, Case, Lead

MESSAGES = int(os.environ.get("RAM_DIFFERENTIAL_MESSAGES", "200000"))
FEW = 2000

OPENING = 0.20
"""At least so many of the exchanges open something, and at least so many replies have these reasons."""
SHARES = {
    Reason.DNS_MALFORMED: 0.15,
    Reason.DNS_LEARNED: 0.05,
    Reason.DNS_OTHER_NAME: 0.03,
    Reason.DNS_NO_ADDRESS: 0.02,
    Reason.DNS_NO_QUERY: 0.02,
    Reason.DNS_NOT_LISTED: 0.01,
    Reason.DNS_WRONG_QUESTION: 0.01,
    Reason.DNS_TRUNCATED: 0.005,
    Reason.DNS_ALIAS: 0.005,
    Reason.DNS_PRIVATE_ADDRESS: 0.005,
    Reason.DNS_TOO_MANY: 0.001,
}


@pytest.fixture(scope="module")
def differential() -> Iterator[Differential]:
    with Differential() as loaded:
        yield loaded


def compare_generated(differential: Differential, count: int) -> int:
    """Returns how many messages were compared."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    before = differential.tally.messages
    run(differential, count, seed)
    return differential.tally.messages - before


@pytest.mark.core
@pytest.mark.timeout(1800)
def test_few_generated_messages(differential: Differential) -> None:
    assert compare_generated(differential, FEW) >= FEW


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_generated_messages(differential: Differential) -> None:
    assert compare_generated(differential, MESSAGES) >= MESSAGES
    tally = differential.tally
    print("\n".join(tally.lines()))
    print(differential.reference.deviations, f"confirmed by dnspython: {differential.reference.confirmed}")
    if MESSAGES >= 100_000:  # what fewer happen to be says nothing
        assert tally.opening >= OPENING * tally.messages
        rare = {
            reason.slug: tally.share(reason)
            for reason, least in SHARES.items()
            if tally.share(reason) < least
        }
        assert not rare
        assert differential.reference.confirmed >= 0.02 * tally.messages


# What chance seldom finds: the places where one program hands over to the next, and the last step of all.


def asked(*answers: bytes, qtype: int = m.A, lead: Lead | None = None, name: bytes = b"registry") -> Case:
    """About an allowed name."""
    asked_name = labels(name, b"test")
    return Case(
        message(question(asked_name, qtype)),
        message(question(asked_name, qtype), answers, flags=m.RESPONSE),
        alias=(name, b"test") if lead else None,
        lead=lead,
    )


def hints(count: int) -> bytes:
    value = b"".join(struct.pack("!I", 0x08080000 + number) for number in range(count))
    return record(m.HTTPS, b"\0\1\0" + struct.pack("!2H", 4, len(value)) + value)


def another_rule(differential: Differential) -> Lead:
    """By which the name of the query is allowed as well: with other ports."""
    (rule,) = (rule for rule in differential.tables.rules.names if str(rule.pattern) == "other.test")
    return Lead(900.5, rule.rank, 1, before=True)


@pytest.mark.parametrize("extra", [0, 1], ids=["in step", "a step later"])
def test_any_number_of_addresses_for_two_rules(differential: Differential, extra: int) -> None:
    lead = another_rule(differential)
    first = [record(m.TXT, b"")] * extra
    for count in range(1, 60):
        answers = [*first, *(address(f"8.8.4.{number}") for number in range(count))]
        differential.compare(asked(*answers, lead=lead))
        differential.compare(asked(*first, hints(count), qtype=m.HTTPS, lead=lead))


@pytest.mark.parametrize("rules", [1, 2])
def test_last_step(differential: Differential, rules: int) -> None:
    lead = another_rule(differential) if rules == 2 else None
    reasons = set()
    most = MAX_STEPS // rules
    for count in range(most - 20, most + 5):
        case = asked(hints(count), qtype=m.HTTPS, lead=lead)
        reasons.add(differential.reference.expect(case).reason)
        differential.compare(case)
    assert reasons == {Reason.DNS_LEARNED, Reason.DNS_TOO_MANY}


@pytest.mark.parametrize("key", [4, 6])
def test_hints_that_are_not_whole_addresses(differential: Differential, key: int) -> None:
    """Their rest is no parameter, even where it looks like one."""
    for length in range(41):
        value = (bytes((8, 8, 4, 4)) * 8)[: length // 16 * 16] + b"\xff\xff\0\0" * 4
        data = b"\0\1\0" + struct.pack("!2H", key, length) + value[:length]
        for behind in (b"", b"\0\7\0\0", bytes(5)):
            differential.compare(asked(record(m.HTTPS, data + behind), hints(2), qtype=m.HTTPS))


def test_aliases_as_deep_as_they_go(differential: Differential) -> None:
    for name in (b"unlisted", b"registry"):
        for depth in range(abi.ALIAS_DEPTH_MAX + 2):
            lead = Lead(900.5, another_rule(differential).rule, depth, before=True)
            for qtype in (m.A, m.HTTPS):
                alias = record(m.CNAME, wire("cdn.example"))
                service = record(m.HTTPS, b"\0\1" + wire("cdn.example"))
                for answers in ((alias,), (service,), (service, alias), (address("8.8.4.4"), hints(1))):
                    differential.compare(asked(*answers, qtype=qtype, lead=lead, name=name))


def test_names_of_any_number_of_labels(differential: Differential) -> None:
    for count in range(1, 128):
        long = labels(*[b"z"] * count)
        answers = [record(m.CNAME, long), *(address("8.8.4.4", owner=long) for _ in range(5))]
        differential.compare(asked(*answers))


def test_chains_of_any_length(differential: Differential) -> None:
    chain = []
    owner = m.QUESTION
    for number in range(80):
        target = labels(b"n%d" % number, b"example")
        chain.append(record(m.CNAME, target, owner=owner, ttl=500 - number))
        owner = target
        differential.compare(asked(*chain))
        differential.compare(asked(*chain, address("8.8.4.4", owner=owner)))
        differential.compare(asked(*reversed(chain), address("8.8.4.4", owner=owner)))


def test_pointers_to_pointers(differential: Differential) -> None:
    start = len(asked().reply)
    answers = [address("8.8.4.4")]
    for number in range(60):
        answers.append(address("8.8.4.4", owner=struct.pack("!H", 0xC000 | start + 16 * number)))
        differential.compare(asked(*answers))
        differential.compare(asked(*answers, address("8.8.4.5", owner=b"\1x" + answers[-1][:2])))


def test_labels_of_any_length(differential: Differential) -> None:
    """Names are told apart by labels of two lengths; all octets of a label count, and case does not."""
    for length in range(1, 64):
        label = bytes(0x61 + number % 26 for number in range(length))
        for changed in (label.upper(), label[:-1] + b"0", label[:-1], label + b"a", label[::-1]):
            if 0 < len(changed) <= 63:
                alias = record(m.CNAME, labels(label, b"example"))
                differential.compare(asked(alias, address("8.8.4.4", owner=labels(changed, b"example"))))
        differential.compare(asked(record(m.CNAME, labels(label, b"example"))))


def test_every_octet_in_a_label(differential: Differential) -> None:
    for octet in range(256):
        alias = record(m.CNAME, labels(b"x" + bytes((octet,)), b"example"))
        for other in {octet ^ 0x20, octet}:
            owner = labels(b"x" + bytes((other,)), b"example")
            differential.compare(asked(alias, address("8.8.4.4", owner=owner)))
        differential.compare(asked(address("8.8.4.4"), name=b"registr" + bytes((octet,))))


def test_every_cut_and_every_length(differential: Differential) -> None:
    """Of a datagram, and of each record."""
    answers = [
        record(m.CNAME, wire("cdn.example")),
        address("8.8.4.4", owner=wire("cdn.example")),
        address("2001:db8::1", owner=b"\xc0\x2b"),
    ]
    for qtype in (m.A, m.HTTPS):
        case = asked(*answers, hints(3), qtype=qtype)
        for length in range(len(case.reply) + 10):
            differential.compare(Case(case.query, case.reply[:length]))
            differential.compare(Case(case.query, case.reply, reply_length=length))
    for rtype, data in ((m.A, b"\x08\x08\x04\x04"), (m.AAAA, bytes(16)), (m.CNAME, wire("a.example"))):
        for length in range(2 * len(data)):
            differential.compare(asked(record(rtype, data, length=length)))
            differential.compare(asked(record(rtype, (data * 2)[:length]), address("8.8.4.4")))

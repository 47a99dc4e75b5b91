"""From rules to what the maps hold."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.namehash import NameHasher
from ram_ebpf.dataplane.tables import Tables, pack_rule
from ram_ebpf.policy.automaton import DEAD, START
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import AddressRule, NameRule, RuleSet, compile_rules

MULTIPLIERS = (2, 3, 5, 7)
POLICY = """version: 1
registries:
  - host: a.test
  - host: "*.a.test"
    ports: [5000, 443]
  - host: "**.a.test"
  - host: "**.b.test"
  - host: "img-*.a.test"
    ports: [1, 2, 3, 4, 5, 6, 7, 8]
  - address: 10.0.0.0/24
    ports: [443, 5000]
  - address: 2001:db8::/48
"""


def tables_of(policy: str) -> Tables:
    rules = compile_rules(parse_policy(policy.encode(), "policy.yaml"), load_catalogue())
    return Tables(rules, MULTIPLIERS)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return tables_of(POLICY)


def number_of(tables: Tables, pattern: str) -> int:
    (found,) = [rule.rank for rule in tables.rules.names if rule.pattern.text == pattern]
    return found


def key(name: str) -> bytes:
    return NameHasher(MULTIPLIERS).key(name.split("."))


def test_name_rules_are_numbered_by_rank_and_address_rules_behind_them(tables: Tables) -> None:
    texts = []
    for number in range(1, 8):
        rule = tables.rule(number)
        assert rule is not None
        texts.append(rule.pattern.text if isinstance(rule, NameRule) else str(rule.network))
    assert texts == [
        "**.a.test",
        "**.b.test",
        "*.a.test",
        "img-*.a.test",
        "a.test",
        "10.0.0.0/24",
        "2001:db8::/48",
    ]
    assert tables.rule(0) is None
    assert tables.rule(8) is None


def test_greater_number_is_more_specific(tables: Tables) -> None:
    order = ["**.a.test", "*.a.test", "img-*.a.test", "a.test"]
    numbers = [number_of(tables, pattern) for pattern in order]
    assert numbers == sorted(numbers)


def test_patterns_of_one_suffix_share_an_entry(tables: Tables) -> None:
    suffixes = {k: abi.Suffix.from_buffer_copy(v) for k, v in tables.names()}
    assert set(suffixes) == {key("a.test"), key("b.test")}
    shared = suffixes[key("a.test")]
    assert (shared.exact, shared.one, shared.deep) == (
        number_of(tables, "a.test"),
        number_of(tables, "*.a.test"),
        number_of(tables, "**.a.test"),
    )
    single = suffixes[key("b.test")]
    assert (single.exact, single.one, single.deep) == (0, 0, number_of(tables, "**.b.test"))


def test_rules_have_their_ports(tables: Tables) -> None:
    entries = {struct.unpack("=I", k)[0]: abi.Rule.from_buffer_copy(v) for k, v in tables.rule_entries()}
    assert set(entries) == set(range(1, 8))
    star = entries[number_of(tables, "*.a.test")]
    assert (list(star.port), star.ports) == ([443, 5000, 0, 0, 0, 0, 0, 0], 2)
    full = entries[number_of(tables, "img-*.a.test")]
    assert (list(full.port), full.ports) == ([1, 2, 3, 4, 5, 6, 7, 8], 8)


def test_automaton_is_that_of_the_globs(tables: Tables) -> None:
    states = [abi.State.from_buffer_copy(value) for _, value in tables.states()]
    assert [struct.unpack("=I", k)[0] for k, _ in tables.states()] == list(range(len(states)))
    assert len(states) == len(tables.automaton.states)
    assert tables.automaton_start == START
    assert (set(states[DEAD].next), states[DEAD].accept) == ({DEAD}, 0)
    # No pattern is the integer -1 there, but rule 0 here.
    assert {state.accept for state in states} == {0, number_of(tables, "img-*.a.test")}
    for state, original in zip(states, tables.automaton.states, strict=True):
        assert tuple(state.next) == original.next


def test_ranges_are_one_for_each_port(tables: Tables) -> None:
    v4, v6 = ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("2001:db8::/48")
    assert {k: struct.unpack("=I", v)[0] for k, v in tables.ranges()} == {
        abi.range_key(v4, 443): 6,
        abi.range_key(v4, 5000): 6,
        abi.range_key(v6, 443): 7,
    }


def test_range_given_twice_belongs_to_the_first_rule() -> None:
    network, wider = ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("10.0.0.0/16")
    rules = (
        AddressRule(network, (443,), "policy.yaml:1"),
        AddressRule(network, (443, 5000), "policy.yaml:2"),
        AddressRule(wider, (443,), "policy.yaml:3"),
    )
    found = [(k, struct.unpack("=I", v)[0]) for k, v in Tables(RuleSet((), rules), MULTIPLIERS).ranges()]
    assert found == [
        (abi.range_key(network, 443), 1),
        (abi.range_key(network, 5000), 2),
        (abi.range_key(wider, 443), 3),
    ]


def test_maps_have_room_for_what_they_will_hold(tables: Tables) -> None:
    assert tables.entries() == {
        "seeded": 65536,
        "names": len(list(tables.names())),
        "automaton": len(list(tables.states())),
        "rules": len(list(tables.rule_entries())) + 1,  # rule 0 is none
        "ranges": len(list(tables.ranges())),
    }


def test_empty_policy_has_no_map_of_no_entries() -> None:
    """The kernel makes no such map."""
    tables = Tables(RuleSet((), ()), MULTIPLIERS)
    assert all(count >= 1 for count in tables.entries().values())
    assert tables.automaton_start == 0
    assert [*tables.names(), *tables.rule_entries(), *tables.ranges()] == []


def test_many_names_have_room_for_many_addresses_each() -> None:
    names = "".join(f"  - host: registry{number}.test\n" for number in range(20_000))
    assert tables_of(f"version: 1\nregistries:\n{names}").entries()["seeded"] > 65536


def test_policy_without_globs_has_no_automaton() -> None:
    tables = tables_of('version: 1\nregistries:\n  - host: "**.a.test"\n')
    assert tables.automaton_start == 0
    assert tables.entries()["automaton"] == 1


def test_another_secret_gives_other_keys(tables: Tables) -> None:
    other = Tables(tables.rules, (11, 13, 17, 19))
    assert {k for k, _ in other.names()}.isdisjoint(k for k, _ in tables.names())


def test_rule_has_room_for_8_ports() -> None:
    full = abi.Rule.from_buffer_copy(pack_rule(range(1, abi.PORTS_MAX + 1)))
    assert (list(full.port), full.ports) == ([1, 2, 3, 4, 5, 6, 7, 8], 8)
    with pytest.raises(ValueError, match="room for 8 ports, not 9"):
        pack_rule(range(1, 10))


def test_an_ipv6_range_around_the_mapped_addresses_has_a_hole_there() -> None:
    made = tables_of("version: 1\nregistries:\n  - address: ::/0\n    ports: [443]\n")
    hole = abi.range_key(ipaddress.IPv6Network("::ffff:0:0/96"), 443)
    assert dict(made.ranges())[hole] == struct.pack("=I", 0)
    assert made.entries()["ranges"] == 2

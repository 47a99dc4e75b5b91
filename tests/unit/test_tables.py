"""From rules to what the maps hold."""

from __future__ import annotations

import ipaddress
import struct

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.namehash import NameHasher
from ram_ebpf.dataplane.tables import SPARE_IDENTITIES, Tables, identity_of, refused_list
from ram_ebpf.policy.automaton import DEAD, START
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.loader import parse_policy
from ram_ebpf.policy.rules import AddressRule, FoundRule, NameRule, RuleSet, compile_rules

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
        assert not isinstance(rule, FoundRule)
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


def test_rules_share_lists_of_ports(tables: Tables) -> None:
    entries = {struct.unpack("=I", k)[0]: abi.Rule.from_buffer_copy(v) for k, v in tables.rule_entries()}
    assert set(entries) == set(range(1, 8))
    for number in (6, 7):  # address rules open nothing by a name
        assert entries.pop(number).flags == abi.RuleFlag.ADDRESS
    lists = tables.rules.port_lists()
    assert tables.port_lists == len(lists) == 3
    assert lists[entries[number_of(tables, "*.a.test")].port_list] == (443, 5000)
    assert lists[entries[number_of(tables, "img-*.a.test")].port_list] == (1, 2, 3, 4, 5, 6, 7, 8)
    assert lists[entries[number_of(tables, "a.test")].port_list] == (443,)
    assert {entry.flags for entry in entries.values()} == {0}


def test_each_port_knows_its_lists(tables: Tables) -> None:
    lists = tables.rules.port_lists()
    found = {struct.unpack("=I", k)[0]: struct.unpack("=Q", v)[0] for k, v in tables.ports()}
    assert set(found) == {443, 5000, *range(1, 9)}
    for port, bits in found.items():
        assert [number for number in range(64) if bits >> number & 1] == [
            number for number, ports in enumerate(lists) if port in ports
        ]


def test_rules_have_their_flags() -> None:
    made = tables_of(
        "version: 1\nregistries:\n"
        "  - { host: any.test, private: true }\n"
        "  - { host: some.test, private: [10.0.0.0/8, '::/0'] }\n"
        "denied: [no.test]\n"
    )
    flags = {struct.unpack("=I", k)[0]: abi.Rule.from_buffer_copy(v).flags for k, v in made.rule_entries()}
    assert flags[number_of(made, "any.test")] == abi.RuleFlag.PRIVATE
    assert flags[number_of(made, "some.test")] == abi.RuleFlag.PRIVATE_RANGES
    # Whichever address it has: a denied name is refused at private ones too.
    assert flags[number_of(made, "no.test")] == abi.RuleFlag.DENY | abi.RuleFlag.PRIVATE


def ranges_of(tables: Tables) -> dict[bytes, int]:
    return {k: struct.unpack("=I", v)[0] for k, v in tables.private_ranges()}


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        pytest.param(["10.0.0.0/8"], {"10.0.0.0/8": True}, id="IPv4"),
        pytest.param(["10.0.0.7"], {"10.0.0.7/32": True}, id="one address"),
        pytest.param(["fd00:1::/64"], {"fd00:1::/64": True}, id="IPv6"),
        # IPv4 is kept as ::ffff:0:0/96, which whoever writes a wider range does not mean.
        pytest.param(["::/0"], {"::/0": True, "::ffff:0:0/96": False}, id="an IPv6 range around IPv4"),
        pytest.param(["::/80"], {"::/80": True, "::ffff:0:0/96": False}, id="the narrowest around IPv4"),
        pytest.param(["::/96"], {"::/96": True}, id="an IPv6 range beside IPv4"),
        pytest.param(
            ["::/0", "10.0.0.0/8"],
            {"::/0": True, "::ffff:0:0/96": False, "10.0.0.0/8": True},
            id="an IPv6 range around IPv4, and a part of that",
        ),
        pytest.param(
            ["::/0", "0.0.0.0/0"], {"::/0": True, "0.0.0.0/0": True}, id="an IPv6 range and all of IPv4"
        ),
        pytest.param(
            ["::/0", "::/64"],
            {"::/0": True, "::/64": True, "::ffff:0:0/96": False},
            id="two IPv6 ranges around IPv4",
        ),
    ],
)
def test_private_ranges(networks: list[str], expected: dict[str, bool]) -> None:
    listed = ", ".join(f"'{network}'" for network in networks)
    made = tables_of(f"version: 1\nregistries:\n  - {{ host: a.test, private: [{listed}] }}\n")
    number = number_of(made, "a.test")
    found = ranges_of(made)
    wanted = {
        abi.range_key(ipaddress.ip_network(text), number): number if there else 0
        for text, there in expected.items()
    }
    assert found == wanted
    assert made.entries()["private_ranges"] == len(wanted)


def test_private_ranges_are_a_rules_own() -> None:
    made = tables_of(
        "version: 1\nregistries:\n"
        "  - { host: a.test, private: [10.0.0.0/8] }\n"
        "  - { host: b.test, private: [10.0.0.0/8, 172.16.0.0/12] }\n"
        "  - { host: c.test, private: true }\n"
    )
    wide, narrow = ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("172.16.0.0/12")
    first, second = number_of(made, "a.test"), number_of(made, "b.test")
    assert ranges_of(made) == {
        abi.range_key(wide, first): first,
        abi.range_key(wide, second): second,
        abi.range_key(narrow, second): second,
    }


DENYING = """version: 1
registries:
  - host: "**.a.test"
  - host: both.a.test
    ports: [5000]
  - host: "img-*.a.test"
denied:
  - no.a.test
  - both.a.test
  - "*.a.test"
  - "bad-*.a.test"
"""


def test_denied_names_are_found_like_others() -> None:
    made = tables_of(DENYING)
    suffixes = {k: abi.Suffix.from_buffer_copy(v) for k, v in made.names()}
    assert set(suffixes) == {key("a.test"), key("no.a.test"), key("both.a.test")}
    assert suffixes[key("no.a.test")].exact == number_of(made, "no.a.test")
    shared = suffixes[key("a.test")]
    assert (shared.one, shared.deep) == (number_of(made, "*.a.test"), number_of(made, "**.a.test"))
    accepting = {abi.State.from_buffer_copy(value).accept for _, value in made.states()}
    assert accepting == {0, number_of(made, "img-*.a.test"), number_of(made, "bad-*.a.test")}


def test_denied_names_open_nothing() -> None:
    made = tables_of(DENYING)
    flags = {struct.unpack("=I", k)[0]: abi.Rule.from_buffer_copy(v).flags for k, v in made.rule_entries()}
    denied = {rule.pattern.text for rule in made.rules.names if flags[rule.rank] & abi.RuleFlag.DENY}
    assert denied == {"no.a.test", "both.a.test", "*.a.test", "bad-*.a.test"}
    # The ports of what is denied as well count for nothing.
    assert {struct.unpack("=I", k)[0] for k, _ in made.ports()} == {443}
    assert made.port_lists == 1


def test_policy_that_denies_all_that_it_allows() -> None:
    made = tables_of("version: 1\nregistries: [{ host: a.test }]\ndenied: [a.test]\n")
    assert (made.port_lists, list(made.ports())) == (0, [])
    assert all(count >= 1 for count in made.entries().values())


def test_as_many_lists_of_ports_as_there_can_be() -> None:
    hosts = "".join(
        f"  - {{ host: h{number}.test, ports: [443, {1000 + number}] }}\n"
        for number in range(abi.PORT_LISTS_MAX)
    )
    made = tables_of(f"version: 1\nregistries:\n{hosts}")
    found = {struct.unpack("=I", k)[0]: struct.unpack("=Q", v)[0] for k, v in made.ports()}
    assert found[443] == 2**64 - 1
    assert sorted(bits for port, bits in found.items() if port != 443) == [
        1 << number for number in range(abi.PORT_LISTS_MAX)
    ]
    for rule in made.rules.names:
        assert found[rule.ports[1]] == 1 << made.port_list_of(rule)


def test_automaton_is_that_of_the_globs(tables: Tables) -> None:
    states = [abi.State.from_buffer_copy(value) for _, value in tables.states()]
    assert [struct.unpack("=I", k)[0] for k, _ in tables.states()] == list(range(len(states)))
    assert len(states) == len(tables.automaton.states)
    assert tables.automaton_start == START
    assert (set(states[DEAD].next), states[DEAD].accept) == ({DEAD}, 0)
    # No pattern is the integer -1 there, but rule 0 here.
    assert {state.accept for state in states} == {0, number_of(tables, "img-*.a.test")}
    for state, original in zip(states, tables.automaton.states, strict=True):
        room = abi.CLASS_ROOM - abi.CLASS_COUNT
        assert tuple(state.next) == (*original.next, *(DEAD,) * room)


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
        "rules": 7 + 1,  # rule 0 is none
        "live": 7 + SPARE_IDENTITIES,
        "ranges": len(list(tables.ranges())),
        "private_ranges": 1,
        "ports": len(list(tables.ports())),
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


def test_an_ipv6_range_around_the_mapped_addresses_has_a_hole_there() -> None:
    made = tables_of("version: 1\nregistries:\n  - address: ::/0\n    ports: [443]\n")
    hole = abi.range_key(ipaddress.IPv6Network("::ffff:0:0/96"), 443)
    assert dict(made.ranges())[hole] == struct.pack("=I", 0)
    assert made.entries()["ranges"] == 2


# --- what is refused where registries are recognised


RECOGNISING = "version: 1\nregistries: [{ host: a.test }, { address: 10.0.0.1 }]\ndenied: [no.test]\n"
ASKED = (443, 8080)


def recognising(asked: tuple[int, ...] = ASKED) -> Tables:
    policy = parse_policy(RECOGNISING.encode(), "policy.yaml")
    return Tables(compile_rules(policy, load_catalogue(), recognising=True), MULTIPLIERS, asked)


def entries_of(tables: Tables) -> dict[int, abi.Rule]:
    return {struct.unpack("=I", k)[0]: abi.Rule.from_buffer_copy(v) for k, v in tables.rule_entries()}


def test_refused_lists_are_none_of_the_lists_of_ports() -> None:
    assert refused_list(None) == abi.RefusedList.ALL
    numbers = [refused_list(port) for port in range(1, 65536)]
    assert len({refused_list(None), *numbers}) == 65536
    assert min(refused_list(None), *numbers) >= abi.PORT_LISTS_MAX
    assert [number - abi.RefusedList.ON for number in numbers] == list(range(1, 65536))


def test_denied_names_are_refused_on_all_ports() -> None:
    made = recognising()
    entries = entries_of(made)
    for pattern in ("no.test", "quay.io", "*.dkr.ecr.*.amazonaws.com"):
        entry = entries[number_of(made, pattern)]
        assert entry.port_list == refused_list(None)
        assert entry.flags == abi.RuleFlag.DENY | abi.RuleFlag.PRIVATE
    allowed = entries[number_of(made, "a.test")]
    assert (allowed.port_list, allowed.flags) == (0, 0)
    assert made.port_lists == 1


def test_registries_that_are_found_have_rules_behind_all_others() -> None:
    made = recognising()
    names, addresses = len(made.rules.names), len(made.rules.addresses)
    found = [made.rule(names + addresses + n) for n in (1, 2, 3)]
    assert found == [FoundRule(443), FoundRule(8080), FoundRule(None)]
    assert made.rule(names + addresses + 4) is None
    assert made.entries()["rules"] == names + addresses + 3 + 1
    entries = entries_of(made)
    for number in range(names + addresses + 1, names + addresses + 4):
        rule = made.rule(number)
        assert isinstance(rule, FoundRule)
        assert entries[number].port_list == refused_list(rule.port)
        assert entries[number].flags == abi.RuleFlag.DENY | abi.RuleFlag.PRIVATE


@pytest.mark.parametrize(
    ("ports", "rule"),
    [({443}, FoundRule(443)), ({8080}, FoundRule(8080)), ({443, 8080}, FoundRule(None))],
)
def test_number_of_what_was_found(ports: set[int], rule: FoundRule) -> None:
    made = recognising()
    assert made.rule(made.number_of_found(ports)) == rule


def test_nothing_is_found_where_nobody_asks() -> None:
    made = recognising(())
    assert not [n for n in range(1, made.entries()["rules"]) if isinstance(made.rule(n), FoundRule)]


@pytest.mark.parametrize(
    ("asked", "names", "depths"),
    [
        ((), ["a.test"], 1 << 2),
        ((), ["a.test", "'**.b.c.test'", "test"], 1 << 1 | 1 << 2 | 1 << 3),
        ((), [".".join(["a"] * 31)], 1 << 31),
        ((), [".".join(["a"] * 40)], 1 << 31),
        ((443,), ["a.test"], 2**32 - 1),
    ],
)
def test_depths_of_names(asked: tuple[int, ...], names: list[str], depths: int) -> None:
    """What is found by asking may have any number of labels, and is added later."""
    registries = "".join(f"  - host: {name}\n" for name in names)
    policy = parse_policy(f"version: 1\nregistries:\n{registries}".encode(), "policy.yaml")
    assert Tables(compile_rules(policy, load_catalogue()), MULTIPLIERS, asked).suffix_depths == depths


@pytest.mark.parametrize("name", ["a.test", "test", "a.b.c.d.e.f.test", "x-1_y.test"])
def test_key_of_a_name(name: str) -> None:
    """Of a name that is found later, it is what it would have been in the policy."""
    policy = f"version: 1\nregistries: [{{ host: {name} }}]\n"
    (there,) = [k for k, _ in tables_of(policy).names()]
    assert recognising().key_of(name) == there == key(name)


def test_rules_have_one_identity_in_all_policies() -> None:
    one = tables_of(
        "version: 1\nregistries:\n  - host: a.test\n  - host: '*.a.test'\n  - address: 10.0.0.0/8\n"
    )
    other = tables_of(
        "version: 1\nregistries:\n  - host: b.test\n  - host: '*.a.test'\n    ports: [1]\n  - host: A.test.\n"
        "denied: ['*.b.test']\nproxies: [{ address: 10.0.0.0/8, ports: [1] }]\n"
    )
    live, others = (identities_of(tables) for tables in (one, other))
    both = live.keys() & others.keys()
    assert {str(one.rules.match(name)) for name in ("a.test", "x.a.test")} == {
        str(one.rule(live[identity])) for identity in both
    }
    assert all(identity == identity_of(rule) for identity in both if (rule := other.rule(others[identity])))
    assert len(others) == 5  # the deny rule, and the proxy, which is no registry, have their own
    assert all(one.number_of(identity) == number for identity, number in live.items())
    assert [one.number_of(identity) for identity in others.keys() - both] == [0] * 3
    assert [one.number_of(identity) for identity in (0, 2**64 - 1)] == [0, 0]


def identities_of(tables: Tables) -> dict[int, int]:
    """Identity to number."""
    unpack = struct.Struct("=QI").unpack
    return dict(unpack(key + value) for key, value in tables.live())

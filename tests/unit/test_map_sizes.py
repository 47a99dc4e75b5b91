"""What a policy may list is bounded by what the kernel's maps and structures have room for."""

from __future__ import annotations

import ipaddress
import re
import struct

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.answering import Answering, Destination
from ram_ebpf.dataplane.source import source_directory
from ram_ebpf.dataplane.trusted import TrustedResolver
from ram_ebpf.policy.catalogue import load_catalogue
from ram_ebpf.policy.choices import MAX_PORT_LISTS, MAX_RESOLVERS
from ram_ebpf.policy.fields import MAX_PORTS
from ram_ebpf.policy.loader import default_policy
from ram_ebpf.policy.rules import compile_rules

from .daemon.maps import FakeMap
from .daemon.plane import FakePlane

_DECLARATION = re.compile(r"\bRAM_MAP\(.*, (\w+), (\d+), \w+\);")


def declared() -> dict[str, int]:
    """The sizes that C gives, which stay where the policy does not decide them."""
    text = (source_directory() / "lib" / "maps.h").read_text(encoding="utf-8")
    return {name: int(size) for name, size in _DECLARATION.findall(text)}


def test_bounds() -> None:
    assert declared()["resolvers"] == MAX_RESOLVERS
    assert abi.SOME_PORTS_MAX == MAX_PORTS  # registry_ports, unknown_ports
    assert abi.PORT_LISTS_MAX == MAX_PORT_LISTS


def _resolvers(network: str) -> list[TrustedResolver]:
    first = ipaddress.ip_network(network)[1]
    return [TrustedResolver(first + number) for number in range(MAX_RESOLVERS)]


@pytest.fixture
def plane() -> FakePlane:
    made = FakePlane(compile_rules(default_policy(), load_catalogue()))
    made.maps["resolvers"] = FakeMap(MAX_RESOLVERS, value_size=4)
    return made


def test_as_many_resolvers_in_the_place_of_others(plane: FakePlane) -> None:
    """For a moment there is no room for both."""
    for network in ("10.0.0.0/24", "10.1.0.0/24", "2001:db8::/64"):
        plane.trust(_resolvers(network))
        wanted = {abi.endpoint(each.address, 53) for each in _resolvers(network)}
        assert set(plane.maps["resolvers"]) == wanted


def test_too_many(plane: FakePlane) -> None:
    with pytest.raises(OSError, match="long"):
        plane.trust([*_resolvers("10.0.0.0/24"), *_resolvers("10.1.0.0/24")])


def test_ports_of_the_responder() -> None:
    """Which many scopes with lists of their own may mention. Those that most use come first."""
    ports = FakeMap(declared()["responder_ports"], value_size=4, key_size=4)
    maps = {"responder": FakeMap(key_size=4, value_size=48), "responder_ports": ports, "led": FakeMap()}
    maps["responder"].shape = FakeMap(1, len(bytes(abi.Responder())), 4).shape
    here = ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")
    answering = Answering(maps)
    for first in (1, 1000):
        answering.lead_to(Destination(*here, 8000, 1, frozenset(range(first, first + 1500))))
        assert {struct.unpack("=I", key)[0] for key in ports} == set(range(first, first + 1024))

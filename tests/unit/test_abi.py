"""bpf/abi.h and its mirror in Python say the same: what is in one is in the other, with the same numbers."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ram_ebpf.dataplane import abi
from ram_ebpf.dataplane.source import source_directory
from ram_ebpf.policy import classes

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_DEFINE = re.compile(r"^#define RAM_(\w+)[ \t]+\S", re.MULTILINE)  # not the guard, which has no value
_ENUM = re.compile(r"enum ram_(\w+) \{(.*?)\};", re.DOTALL)
_STRUCT = re.compile(r"struct ram_(\w+) \{(.*?)\};", re.DOTALL)
_FIELD = re.compile(r"^\s*(?:struct )?\w+ (\w+)(?:\[\w+\])*;\s*$", re.MULTILINE)
_CONSTANT = re.compile(r"\bRAM_\w+")


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


class Header:
    """The names in the header, found by its text, so that none can be forgotten here."""

    def __init__(self, text: str) -> None:
        text = _COMMENT.sub("", text)
        self.limits = _DEFINE.findall(text)
        self.enums = {name: _CONSTANT.findall(body) for name, body in _ENUM.findall(text)}
        self.structs = {name: _FIELD.findall(body) for name, body in _STRUCT.findall(text)}
        # What the patterns above do not understand must not go unnoticed.
        assert len(self.enums) == text.count("enum ")
        assert len(self.structs) == len(re.findall(r"^struct ", text, re.MULTILINE))
        for name, body in _STRUCT.findall(text):
            assert len(self.structs[name]) == body.count(";"), name
        for name, body in _ENUM.findall(text):
            assert len(self.enums[name]) == body.count("="), name

    def program(self) -> str:
        """A C program that prints each name with its number."""
        lines = [(f"RAM_{name}", f"RAM_{name}") for name in self.limits]
        lines += [(name, name) for names in self.enums.values() for name in names]
        for struct, fields in self.structs.items():
            lines.append((struct, f"sizeof(struct ram_{struct})"))
            for field in fields:
                lines.append((f"{struct}.{field}", f"offsetof(struct ram_{struct}, {field})"))
                lines.append((f"{struct}.{field}#", f"sizeof(((struct ram_{struct} *)0)->{field})"))
        prints = "\n".join(f'printf("{name} %lld\\n", (long long)({value}));' for name, value in lines)
        return f'#include <stddef.h>\n#include <stdio.h>\n#include "abi.h"\nint main(void) {{\n{prints}\n}}\n'


@pytest.fixture(scope="module")
def header() -> Header:
    return Header((source_directory() / "abi.h").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compiled(header: Header, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, int]:
    """What the C compiler makes of the names."""
    folder: Path = tmp_path_factory.mktemp("abi")
    (folder / "names.c").write_text(header.program(), encoding="utf-8")
    command = [
        "cc",
        "-Wall",
        "-Werror",
        f"-I{source_directory()}",
        "-o",
        f"{folder}/names",
        f"{folder}/names.c",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    output = subprocess.run([folder / "names"], capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in (line.split(" ") for line in output.splitlines())}


_STRUCTURES = {
    name: kind
    for name, kind in vars(abi).items()
    if isinstance(kind, type) and issubclass(kind, ctypes.Structure)
}
_ENUMS: dict[str, type[IntEnum] | type[IntFlag]] = {
    name: kind
    for name, kind in vars(abi).items()
    if isinstance(kind, type) and issubclass(kind, IntEnum | IntFlag) and kind not in (IntEnum, IntFlag)
}


def test_structures(header: Header, compiled: Mapping[str, int]) -> None:
    assert {_camel(name) for name in header.structs} == set(_STRUCTURES)
    for name, fields in header.structs.items():
        kind = _STRUCTURES[_camel(name)]
        python = {field[0]: getattr(kind, field[0]) for field in kind._fields_}
        assert list(python) == fields, name
        assert ctypes.sizeof(kind) == compiled[name], name
        assert {field: (place.offset, place.size) for field, place in python.items()} == {
            field: (compiled[f"{name}.{field}"], compiled[f"{name}.{field}#"]) for field in fields
        }, name


def test_structures_have_no_hidden_padding(header: Header, compiled: Mapping[str, int]) -> None:
    """Padding is not set by assigning fields, and a key with other padding is another key."""
    for name, fields in header.structs.items():
        assert sum(compiled[f"{name}.{field}#"] for field in fields) == compiled[name], name


def test_enums(header: Header, compiled: Mapping[str, int]) -> None:
    assert {_camel(name) for name in header.enums} == set(_ENUMS)
    for name, constants in header.enums.items():
        kind = _ENUMS[_camel(name)]
        prefix = f"RAM_{name.removesuffix('_flag').upper()}_"
        assert all(constant.startswith(prefix) for constant in constants), name
        numbers = {constant.removeprefix(prefix): compiled[constant] for constant in constants}
        count = numbers.pop("COUNT", None)
        if name == "reason":
            assert count == abi.REASON_COUNT
        elif count is not None:  # places in an array, all of them taken
            assert sorted(numbers.values()) == list(range(count)), name
        assert {member.name: member.value for member in kind} == numbers
        assert len(set(numbers.values())) == len(numbers), f"two of {name} have one number"


def test_flags_are_a_bit_each(header: Header, compiled: Mapping[str, int]) -> None:
    for name, constants in header.enums.items():
        assert issubclass(_ENUMS[_camel(name)], IntFlag) is name.endswith("_flag"), name
        if name.endswith("_flag"):
            assert all(compiled[constant].bit_count() == 1 for constant in constants), name


def test_limits(header: Header, compiled: Mapping[str, int]) -> None:
    python = {name: value for name, value in vars(abi).items() if name.isupper() and type(value) is int}
    del python["REASON_COUNT"]  # a constant of the enum
    del python["LAYOUT"]  # of the structures, which are compared themselves
    assert python == {name: compiled[f"RAM_{name}"] for name in header.limits}


def test_every_reason_has_a_counter() -> None:
    assert max(abi.Reason) < abi.REASON_COUNT


def test_classes_are_those_of_the_policy() -> None:
    assert (abi.CLASS_COUNT, abi.CLASS_OTHER, abi.CLASS_SEP) == (
        classes.CLASS_COUNT,
        classes.OTHER,
        classes.SEP,
    )
    assert len(classes.class_table()) == abi.Config.class_of.size


def test_slugs() -> None:
    assert abi.Reason.DENIED_UNKNOWN_ADDRESS.slug == "denied-unknown-address"


@pytest.mark.parametrize("text", ["0.0.0.0", "10.0.0.53", "255.255.255.255", "::", "::1", "2001:db8::53"])
def test_addresses_come_back(text: str) -> None:
    packed = abi.pack_address(ip_address(text))
    assert len(packed) == 16
    assert abi.unpack_address(packed) == ip_address(text)


def native(number: int, size: int) -> bytes:
    """As this machine writes numbers."""
    return number.to_bytes(size, sys.byteorder)


MAPPED = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 53))
SIX = ip_address("2001:db8::53")


def test_both_spellings_of_an_ipv4_address_are_one_key() -> None:
    assert abi.pack_address(ip_address("10.0.0.53")) == MAPPED
    assert abi.pack_address(ip_address("::ffff:10.0.0.53")) == MAPPED
    assert str(abi.unpack_address(MAPPED)) == "10.0.0.53"


def test_endpoints() -> None:
    assert abi.endpoint(ip_address("10.0.0.53"), 443) == MAPPED + native(443, 2) + bytes(2)
    assert abi.endpoint(SIX, 65535) == SIX.packed + native(65535, 2) + bytes(2)


def test_openings() -> None:
    assert abi.opening_key(ip_address("10.0.0.53"), 0) == MAPPED + bytes(4)
    last = abi.PORT_LISTS_MAX - 1
    assert abi.opening_key(SIX, last) == SIX.packed + native(last, 4)


def test_flows() -> None:
    key = abi.flow(ip_address("10.0.0.53"), 40000, SIX, 53)
    assert key == MAPPED + SIX.packed + native(40000, 2) + native(53, 2) + bytes(4)
    assert len(key) == ctypes.sizeof(abi.Flow)


@pytest.mark.parametrize("number", [0, 1, 443, 0x1234, 65536, 200_000])
def test_ranges(number: int) -> None:
    """The port, or rule, comes first, in network order, so that it is the first 32 bits of the prefix."""
    for text, length in (("10.0.0.0/24", 32 + 96 + 24), ("2001:db8::/48", 32 + 48)):
        network = ip_network(text)
        key = abi.RangeKey.from_buffer_copy(abi.range_key(network, number))
        assert key.prefixlen == length
        assert bytes(key)[4:8] == number.to_bytes(4, "big")
        assert bytes(key.address) == abi.pack_address(network.network_address)


def test_widest_ranges() -> None:
    for text, length in (("0.0.0.0/0", 32 + 96), ("::/0", 32), ("10.0.0.1/32", 32 + 128)):
        assert abi.RangeKey.from_buffer_copy(abi.range_key(ip_network(text), 443)).prefixlen == length


def test_layout_of_what_outlives_an_instance() -> None:
    """Another version that has one more field, or other numbers for the same names, is not misread."""

    class Longer(ctypes.Structure):
        _fields_ = (*abi.Connection._fields_, ("spare", ctypes.c_uint64))

    class Swapped(IntEnum):
        NAMED = abi.Stage.CUT
        CUT = abi.Stage.NAMED

    class Stage(IntEnum):
        NAMED = abi.Stage.NAMED
        CUT = abi.Stage.CUT

    Longer.__name__, Swapped.__name__ = "Connection", "Stage"
    ours = abi.layout_of([abi.Connection], [Stage])
    assert ours == abi.layout_of([abi.Connection], [Stage])
    assert ours != abi.layout_of([Longer], [Stage])
    assert ours != abi.layout_of([abi.Connection], [Swapped])
    assert abi.layout_of([abi.Connection], [abi.Stage]) != abi.layout_of([abi.Connection], [])

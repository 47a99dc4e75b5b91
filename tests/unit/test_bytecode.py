"""Bytecode survives its way to the disk and back; what was not written by us is refused."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from ram_ebpf.dataplane import syscall
from ram_ebpf.dataplane.bytecode import Bytecode, BytecodeError, MapShape, Program
from ram_ebpf.dataplane.programs import PROGRAM_SETS

EXIT = struct.pack("<BBhi", 0x95, 0, 0, 0)
_MAP_FD, _MAP_VALUE = 1, 2


def load64(pseudo: int, immediate: int, upper: int = 0) -> bytes:
    """A 64-bit load into r1: two instructions, of which the first says what the immediate means."""
    return struct.pack("<BBhi", 0x18, pseudo << 4 | 1, 0, immediate) + struct.pack("<BBhi", 0, 0, 0, upper)


SHAPE = MapShape(type=1, key_size=4, value_size=8, max_entries=16, flags=0)
CODE = EXIT + load64(_MAP_FD, 7) + load64(0, 7) + load64(_MAP_FD, 9) + EXIT


def sample() -> Bytecode:
    program = Program.from_dump(CODE, {7: "names", 9: "rules"})
    return Bytecode({"first": program, "second": Program(EXIT, ())}, {"names": SHAPE, "rules": SHAPE})


def test_map_descriptors_are_taken_out_and_put_in_again() -> None:
    program = Program.from_dump(CODE, {7: "names", 9: "rules", 11: "unused"})
    # The plain 64-bit number in the middle is no reference, though it is the same number.
    assert program.references == ((1, "names"), (5, "rules"))
    assert program.instructions == EXIT + load64(_MAP_FD, 0) + load64(0, 7) + load64(_MAP_FD, 0) + EXIT
    assert program.with_maps({"names": 7, "rules": 9}) == CODE
    assert program.with_maps({"names": 70, "rules": 90}) == (
        EXIT + load64(_MAP_FD, 70) + load64(0, 7) + load64(_MAP_FD, 90) + EXIT
    )


def test_upper_half_of_a_number_is_no_instruction() -> None:
    """Its octets are 0 in the opcode, by the format; a dump with others must not lead astray."""
    code = struct.pack("<BBhi", 0x18, 1, 0, 5) + struct.pack("<BBhi", 0x18, _MAP_FD << 4, 0, 7) + EXIT
    assert Program.from_dump(code, {}).references == ()


def test_unknown_map_descriptor_is_refused() -> None:
    with pytest.raises(BytecodeError, match="instruction 1 names map descriptor 7"):
        Program.from_dump(CODE, {9: "rules"})


def test_map_that_is_missing_when_loading() -> None:
    with pytest.raises(KeyError, match="rules"):
        sample().programs["first"].with_maps({"names": 7})


def test_round_trip() -> None:
    text = sample().to_json()
    assert Bytecode.from_json(text) == sample()
    assert text.isascii()
    assert Bytecode.from_json(Bytecode({}).to_json()) == Bytecode({})


def altered(**changes: Any) -> str:
    """The sample's JSON with changes; a key such as programs__first is a path."""
    data = json.loads(sample().to_json())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return json.dumps(data)


def referring(*references: object) -> str:
    """The sample's JSON with other references in its first program."""
    return altered(programs__first__references=references)


def test_altered_alters_nothing_by_itself() -> None:
    assert Bytecode.from_json(altered()) == sample()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("\0" * 100, id="zeros"),
        pytest.param("{", id="cut off"),
        pytest.param(altered()[:-20], id="cut off late"),
        pytest.param(altered() + "{}", id="something behind it"),
        pytest.param("null", id="null"),
        pytest.param("1", id="a number"),
        pytest.param('"text"', id="text"),
        pytest.param("[]", id="a list"),
        pytest.param("{}", id="an empty object"),
        pytest.param('{"programs": [], "maps": {}}', id="programs in a list"),
        pytest.param('{"programs": {}, "maps": []}', id="maps in a list"),
        pytest.param('{"programs": {"a": null}, "maps": {}}', id="null for a program"),
        pytest.param('{"programs": {}, "maps": {"a": null}}', id="null for a map"),
        pytest.param('{"programs": {}, "maps": {"a": [1, 2, 3, 4, 5]}}', id="a list for a map"),
        pytest.param(altered(programs=None), id="no programs"),
        pytest.param(altered(maps=None), id="no maps"),
        pytest.param(altered(programs__first__instructions=None), id="no instructions"),
        pytest.param(altered(programs__first__references=None), id="no references"),
        pytest.param(altered(programs__first__instructions=5), id="a number for instructions"),
        pytest.param(altered(programs__first__instructions="!!!!"), id="instructions not in Base64"),
        pytest.param(altered(programs__first__instructions="AAA"), id="Base64 without its padding"),
        pytest.param(altered(programs__first__instructions="é"), id="instructions not in ASCII"),
        pytest.param(altered(programs__second__instructions="AAAA"), id="half an instruction"),
        pytest.param(altered(programs__first__references=7), id="a number for references"),
        pytest.param(referring(1), id="a number for a reference"),
        pytest.param(referring([1]), id="a reference without a map"),
        pytest.param(referring([1, "names", 2]), id="a reference too long"),
        pytest.param(referring(["x", "names"]), id="text for an index"),
        pytest.param(referring([1, "other"]), id="a reference to no map"),
        pytest.param(referring([-1, "names"]), id="a reference before the program"),
        pytest.param(referring([99, "names"]), id="a reference behind the program"),
        pytest.param(referring([8, "names"]), id="a reference just behind it"),
        pytest.param(referring([0, "names"]), id="a reference in another instruction"),
        pytest.param(referring([3, "names"]), id="a reference in a plain number"),
        pytest.param(referring([float("inf"), "names"]), id="infinity for an index"),
        pytest.param(referring([float("nan"), "names"]), id="not a number"),
        pytest.param(altered(maps__names__key_size=None), id="a map without a key size"),
        pytest.param(altered(maps__names__color=1), id="a map with an unknown property"),
        pytest.param(altered(maps__names__type="hash"), id="text for a map's type"),
        pytest.param(altered(maps__names__max_entries=1.5), id="a fraction for a map's size"),
        pytest.param(altered(maps__names__value_size=-1), id="a negative size"),
        pytest.param(altered(maps__names__value_size=2**32), id="a size beyond 32 bits"),
        pytest.param("[" * 100_000, id="more brackets than can be nested"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BytecodeError):
        Bytecode.from_json(text)


def test_names_of_programs_are_whole_in_the_kernel() -> None:
    """By them a later start finds what an earlier one left."""
    names = [hook.object_name for programs in PROGRAM_SETS for hook in (*programs.hooks(), *programs.holding)]
    assert all(len(name) <= syscall.OBJECT_NAME_MAX for name in names)
    assert len(set(names)) == len(names)

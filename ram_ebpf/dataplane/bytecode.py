"""Compiled programs as data: instructions, where in them map descriptors belong, and the maps' shapes."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

INSTRUCTION_SIZE = 8
_LOAD_IMMEDIATE_64 = 0x18
_PSEUDO_MAP_FD = 1


class BytecodeError(ValueError):
    """Stored bytecode that cannot be what we wrote."""


class MapShape(NamedTuple):
    """What a map is created with; max_entries may be chosen anew at load time. Of 32 bits each."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True)
class Program:
    """Instructions (struct bpf_insn) with the immediates of map references left 0."""

    instructions: bytes
    references: tuple[tuple[int, str], ...]  # (index of the instruction, name of the map)

    @classmethod
    def from_dump(cls, code: bytes, name_of_fd: Mapping[int, str]) -> Program:
        """Takes bytecode with map descriptors in it; raises BytecodeError for one that has no name."""
        cleaned = bytearray(code)
        references = []
        index = 0
        while index < len(code) // INSTRUCTION_SIZE:
            at = index * INSTRUCTION_SIZE
            opcode, registers, _, immediate = struct.unpack_from("=BBhi", code, at)
            if opcode == _LOAD_IMMEDIATE_64:
                if registers >> 4 == _PSEUDO_MAP_FD:
                    if immediate not in name_of_fd:
                        raise BytecodeError(f"instruction {index} names map descriptor {immediate}, not ours")
                    references.append((index, name_of_fd[immediate]))
                    struct.pack_into("=i", cleaned, at + 4, 0)
                index += 1  # a 64-bit immediate takes two slots
            index += 1
        return cls(bytes(cleaned), tuple(references))

    def check(self, name: str, maps: Mapping[str, MapShape]) -> None:
        """Raises BytecodeError where the instructions are cut off or a reference is none."""
        if not self.instructions or len(self.instructions) % INSTRUCTION_SIZE:
            raise BytecodeError(f"program {name} is cut off")
        for index, reference in self.references:
            at = index * INSTRUCTION_SIZE
            if reference not in maps or not 0 <= at < len(self.instructions):
                raise BytecodeError(f"program {name}: there is no {reference!r} at {index}")
            if (
                self.instructions[at] != _LOAD_IMMEDIATE_64
                or self.instructions[at + 1] >> 4 != _PSEUDO_MAP_FD
            ):
                raise BytecodeError(f"program {name}: instruction {index} takes no map")

    def with_maps(self, fds: Mapping[str, int]) -> bytes:
        """The instructions with this process's map descriptors in them."""
        code = bytearray(self.instructions)
        for index, name in self.references:
            struct.pack_into("=i", code, index * INSTRUCTION_SIZE + 4, fds[name])
        return bytes(code)


@dataclass(frozen=True)
class Bytecode:
    """One compiled source file."""

    programs: Mapping[str, Program]
    maps: Mapping[str, MapShape] = field(default_factory=dict)

    def to_json(self) -> str:
        """A form for the cache on disk and for the pipe from the compiler."""
        programs = {
            name: {
                "instructions": base64.urlsafe_b64encode(program.instructions).decode("ascii"),
                "references": program.references,
            }
            for name, program in self.programs.items()
        }
        return json.dumps(
            {"programs": programs, "maps": {name: it._asdict() for name, it in self.maps.items()}}
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Bytecode:
        """The reverse; raises BytecodeError for anything else."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BytecodeError(f"not bytecode of ram-ebpf: {error}") from error
        whole = _object(data, "the file", ("programs", "maps"))
        programs = {
            name: _program(item, name) for name, item in _object(whole["programs"], "programs").items()
        }
        maps = {name: _shape(item, name) for name, item in _object(whole["maps"], "maps").items()}
        for name, program in programs.items():
            program.check(name, maps)
        return cls(programs, maps)


def _wrong(where: str, what: str) -> BytecodeError:
    return BytecodeError(f"not bytecode of ram-ebpf: {where}: {what}")


def _object(data: Any, where: str, keys: Iterable[str] | None = None) -> dict[str, Any]:
    """With these keys and no other ones, where they are given."""
    if not isinstance(data, dict):
        raise _wrong(where, "no object")
    if keys is not None and data.keys() != set(keys):
        raise _wrong(where, f"its keys are not {', '.join(keys)}")
    return data


def _program(data: Any, name: str) -> Program:
    item = _object(data, name, ("instructions", "references"))
    try:
        instructions = base64.b64decode(item["instructions"], altchars=b"-_", validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise _wrong(name, f"instructions: {error}") from error
    references = item["references"]
    if not isinstance(references, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int and isinstance(pair[1], str)
        for pair in references
    ):
        raise _wrong(name, "references: no list of numbers with names")
    return Program(instructions, tuple((index, map_name) for index, map_name in references))


def _shape(data: Any, name: str) -> MapShape:
    item = _object(data, name, list(MapShape._fields))
    if not all(type(value) is int and 0 <= value < 2**32 for value in item.values()):
        raise _wrong(name, "a property is no unsigned number of 32 bits")
    return MapShape(**item)

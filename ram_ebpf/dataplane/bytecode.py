"""Compiled programs as data: instructions, where in them map descriptors belong, and the maps' shapes."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INSTRUCTION_SIZE = 8
_LOAD_IMMEDIATE_64 = 0x18
_PSEUDO_MAP_FD = 1


class BytecodeError(ValueError):
    """Stored bytecode that cannot be what we wrote."""


@dataclass(frozen=True)
class MapShape:
    """What a map is created with; max_entries may be chosen anew at load time."""

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
        return json.dumps(
            {
                "programs": {
                    name: {
                        "instructions": base64.b64encode(program.instructions).decode(),
                        "references": program.references,
                    }
                    for name, program in self.programs.items()
                },
                "maps": {name: vars(shape) for name, shape in self.maps.items()},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Bytecode:
        """The reverse; raises BytecodeError for anything else."""
        try:
            data: Any = json.loads(text)
            maps = {str(name): MapShape(**shape) for name, shape in data["maps"].items()}
            programs = {
                str(name): Program(
                    base64.b64decode(item["instructions"], validate=True),
                    tuple((int(index), str(reference)) for index, reference in item["references"]),
                )
                for name, item in data["programs"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BytecodeError(f"not bytecode of ram-ebpf: {error}") from error
        for name, program in programs.items():
            if len(program.instructions) % INSTRUCTION_SIZE:
                raise BytecodeError(f"program {name} is cut off")
            for index, reference in program.references:
                if reference not in maps or not 0 <= index < len(program.instructions) // INSTRUCTION_SIZE:
                    raise BytecodeError(f"program {name}: there is no {reference!r} at {index}")
        return cls(programs, maps)

"""Compiled programs as data: instructions, where in them map descriptors belong, and the maps' shapes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

INSTRUCTION_SIZE = 8
_LOAD_IMMEDIATE_64 = 0x18
_PSEUDO_MAP_FD = 1


class BytecodeError(ValueError):
    """Stored bytecode that cannot be what we wrote."""


_Number = Annotated[int, Field(ge=0, lt=2**32)]


@dataclass(frozen=True)
class MapShape:
    """What a map is created with; max_entries may be chosen anew at load time."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    type: _Number
    key_size: _Number
    value_size: _Number
    max_entries: _Number
    flags: _Number


@dataclass(frozen=True)
class Program:
    """Instructions (struct bpf_insn) with the immediates of map references left 0."""

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

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

    __pydantic_config__ = ConfigDict(extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")

    programs: Mapping[str, Program]
    maps: Mapping[str, MapShape] = field(default_factory=dict)

    def to_json(self) -> str:
        """A form for the cache on disk and for the pipe from the compiler."""
        return _ADAPTER.dump_json(self).decode("ascii")

    @classmethod
    def from_json(cls, text: str | bytes) -> Bytecode:
        """The reverse; raises BytecodeError for anything else."""
        try:
            bytecode = _ADAPTER.validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise BytecodeError(f"not bytecode of ram-ebpf: {where}: {first['msg']}") from error
        for name, program in bytecode.programs.items():
            program.check(name, bytecode.maps)
        return bytecode


_ADAPTER = TypeAdapter(Bytecode)

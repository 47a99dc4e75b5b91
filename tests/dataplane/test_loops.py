"""Programs with may_goto, which newer kernels verify sooner, and without, as older ones need them."""

from __future__ import annotations

import os
from contextlib import closing

import pytest

from ram_ebpf.dataplane import cache, features, maps, syscall
from ram_ebpf.dataplane.bytecode import Bytecode, Program
from ram_ebpf.dataplane.programs import PROGRAM_SETS, Hook, ProgramSet
from ram_ebpf.dataplane.scope_maps import DEVICE_MAPS, SCOPE_MAPS

_EVERY_SET = pytest.mark.parametrize("programs", PROGRAM_SETS, ids=lambda programs: str(programs.source))


class Loader:
    """Loads programs of one source for nothing but to see whether they are taken."""

    def __init__(self, bytecode: Bytecode) -> None:
        self._created = maps.create_maps(bytecode.maps, {}, {**SCOPE_MAPS, **DEVICE_MAPS})
        self._fds = {name: item.fd for name, item in self._created.items()}

    def load(self, hook: Hook, program: Program) -> None:
        """Raises VerifierError."""
        code = program.with_maps(self._fds)
        os.close(syscall.program_load(hook.object_name, hook.program_type, code, hook.attach_type)[0])

    def close(self) -> None:
        for item in self._created.values():
            item.close()


def _load_all(programs: ProgramSet, flags: tuple[str, ...]) -> Bytecode:
    bytecode, _ = cache.load_or_compile(programs.source, flags)
    with closing(Loader(bytecode)) as loader:
        for hook in programs.hooks():
            loader.load(hook, bytecode.programs[hook.function])
    return bytecode


@_EVERY_SET
def test_best_form(programs: ProgramSet) -> None:
    """Where the kernel has may_goto, no program of ours is refused for it."""
    _load_all(programs, features.compiler_flags())


@_EVERY_SET
def test_plain_form(programs: ProgramSet) -> None:
    """On any kernel, as that is what is fallen back to. Both forms share their maps."""
    flags = features.compiler_flags()
    plain = _load_all(programs, tuple(flag for flag in flags if flag != features.MAY_GOTO))
    assert cache.load_or_compile(programs.source, flags)[0].maps == plain.maps

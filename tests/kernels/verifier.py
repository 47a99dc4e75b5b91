"""Loads every program into the running kernel and tells what its verifier went through.

    python -m tests.kernels.verifier

Needs root. Ends with 1 and the verifier's last words if a program does not load.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ram_ebpf.dataplane import cache, features, maps, syscall
from ram_ebpf.dataplane.bytecode import INSTRUCTION_SIZE
from ram_ebpf.dataplane.programs import PROGRAM_SETS, ProgramSet
from ram_ebpf.dataplane.scope_maps import DEVICE_MAPS, SCOPE_MAPS

_PROCESSED = re.compile(r"processed (\d+) insns")
_LOG_LINES = 30


@dataclass(frozen=True)
class Load:
    """What became of one program of a source file. `error` is empty where it was loaded."""

    source: str
    program: str
    instructions: int
    processed: int
    seconds: float
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.source}: {self.program}: DOES NOT LOAD\n{self.error}"
        return (
            f"{self.source:<9} {self.program:<19}{self.instructions:>6} instructions, "
            f"{self.processed:>7} verified, {self.seconds:5.1f} s"
        )


def load_all() -> Iterator[Load]:
    """Loads the programs one after the other, each only for as long as it takes."""
    maps.raise_memlock_limit()
    for programs in PROGRAM_SETS:
        yield from _load(programs)


def _load(programs: ProgramSet) -> Iterator[Load]:
    flags = features.compiler_flags()
    bytecode, cached = cache.load_or_compile(programs.source, flags)
    print(f"flags: {' '.join(flags) or 'none'}{'' if cached else ' (not in the cache: compiled just now)'}")
    inner = {**SCOPE_MAPS, **DEVICE_MAPS}
    created = maps.create_maps(bytecode.maps, {}, inner)
    fds = {name: item.fd for name, item in created.items()}
    for hook in programs.hooks():
        code = bytecode.programs[hook.function].with_maps(fds)
        size = len(code) // INSTRUCTION_SIZE
        started = time.monotonic()
        error = ""
        try:
            fd, log = syscall.program_load(
                hook.object_name, hook.program_type, code, hook.attach_type, want_log=True
            )
            os.close(fd)
        except syscall.VerifierError as refusal:
            log = refusal.log
            error = "\n".join([*log.splitlines()[-_LOG_LINES:], str(refusal)])
        seconds = time.monotonic() - started
        yield Load(programs.source, hook.function, size, _processed(log), seconds, error)
    for item in created.values():
        item.close()


def _processed(log: str) -> int:
    counts = _PROCESSED.findall(log)
    return int(counts[-1]) if counts else 0


def main() -> int:
    """Prints a line a program."""
    failed = False
    for load in load_all():
        print(load, flush=True)
        failed |= bool(load.error)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

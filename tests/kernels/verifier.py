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
from ram_ebpf.dataplane.plane import SOURCE
from ram_ebpf.dataplane.programs import every_program
from ram_ebpf.dataplane.scopes import SCOPE_MAPS

_PROCESSED = re.compile(r"processed (\d+) insns")
_LOG_LINES = 30


@dataclass(frozen=True)
class Load:
    """What became of one program. `error` is empty where it was loaded."""

    program: str
    instructions: int
    processed: int
    seconds: float
    error: str = ""

    def __str__(self) -> str:
        if self.error:
            return f"{self.program}: DOES NOT LOAD\n{self.error}"
        return (
            f"{self.program:<18}{self.instructions:>6} instructions, {self.processed:>7} verified, "
            f"{self.seconds:5.1f} s"
        )


def load_all() -> Iterator[Load]:
    """Loads the programs one after the other, each only for as long as it takes."""
    maps.raise_memlock_limit()
    flags = features.compiler_flags()
    bytecode, cached = cache.load_or_compile(SOURCE, flags)
    print(f"flags: {' '.join(flags) or 'none'}{'' if cached else ' (not in the cache: compiled just now)'}")
    created = maps.create_maps(bytecode.maps, {}, SCOPE_MAPS)
    fds = {name: item.fd for name, item in created.items()}
    for hook in every_program():
        code = bytecode.programs[hook.function].with_maps(fds)
        size = len(code) // INSTRUCTION_SIZE
        started = time.monotonic()
        try:
            fd, log = syscall.program_load(
                hook.object_name, hook.program_type, code, hook.attach_type, want_log=True
            )
        except syscall.VerifierError as error:
            said = "\n".join([*error.log.splitlines()[-_LOG_LINES:], str(error)])
            yield Load(hook.function, size, _processed(error.log), time.monotonic() - started, said)
            continue
        os.close(fd)
        yield Load(hook.function, size, _processed(log), time.monotonic() - started)
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

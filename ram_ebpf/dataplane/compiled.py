"""What one C source file was compiled to, in the form that this kernel verifies fastest, or as it must be."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ram_ebpf.dataplane import cache, features
from ram_ebpf.dataplane.bytecode import Bytecode, MapShape, Program
from ram_ebpf.dataplane.syscall import VerifierError

_log = logging.getLogger(__name__)

_REFUSALS = frozenset({errno.EACCES, errno.E2BIG, errno.EFAULT, errno.EINVAL, errno.ENOSPC})
"""What the verifier says of a program (ENOSPC: in more words than there is room for)."""

_refused: set[tuple[str, str]] = set()
"""Source and function of programs that this kernel does not take with may_goto: no use to try again."""


class Compiled:
    """With may_goto where the kernel has it: walking loops in full is most of what the verifier does.

    It may have it and yet see no end of a loop of ours, as each version prunes in its own way. Such a program
    is compiled once more, to be walked in full. The maps of both forms are the same.
    """

    def __init__(self, source: str, directory: Path) -> None:
        """Compiles bpf/`source`, or takes it from the cache in `directory`. Raises CompileError."""
        self._source, self._directory = source, directory
        self._flags = features.compiler_flags()
        self._bytecode, self.from_cache = cache.load_or_compile(source, self._flags, directory)
        self._plain: Bytecode | None = None
        self._lock = threading.Lock()

    @property
    def maps(self) -> Mapping[str, MapShape]:
        """By their names."""
        return self._bytecode.maps

    def load(self, function: str, attempt: Callable[[Program], int]) -> int:
        """What `attempt` returns: a descriptor of the program. Raises VerifierError or CompileError."""
        if (self._source, function) in _refused:
            return attempt(self._in_plain_form().programs[function])
        try:
            return attempt(self._bytecode.programs[function])
        except VerifierError as refusal:
            if features.MAY_GOTO not in self._flags or refusal.errno not in _REFUSALS:
                raise
            _log.warning("%s: with may_goto; so it is loaded without, which takes longer", refusal)
        loaded = attempt(self._in_plain_form().programs[function])
        _refused.add((self._source, function))
        return loaded

    def _in_plain_form(self) -> Bytecode:
        with self._lock:  # several programs are loaded at a time
            if self._plain is None:
                flags = tuple(flag for flag in self._flags if flag != features.MAY_GOTO)
                self._plain, _ = cache.load_or_compile(self._source, flags, self._directory)
            return self._plain

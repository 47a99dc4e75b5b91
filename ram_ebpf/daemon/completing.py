"""What a start that had to compile began without: compiled beside enforcement, and loaded when it is there.

Until then what these programs would read is dropped, and sent again by who has sent it.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future

from ram_ebpf.dataplane.compiled import Compiled
from ram_ebpf.dataplane.plane import Plane
from ram_ebpf.dataplane.programs import ProgramSet


class Completing:
    """Of one plane. Nobody waits for its thread when the process ends."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._compiled: Future[Mapping[ProgramSet, Compiled]] = Future()
        self._is_due = not plane.is_whole

    @property
    def is_under_way(self) -> bool:
        """Whether follow() is going to load something."""
        return self._is_due

    def begin(self) -> None:
        """Compiles, if there is anything to compile."""
        if not self._is_due:
            return
        try:
            threading.Thread(target=self._compile, name="compile the rest", daemon=True).start()
        except RuntimeError:  # no memory for its stack, or too many tasks
            self._compile()

    def _compile(self) -> None:
        try:
            self._compiled.set_result(self._plane.compile_rest())
        except BaseException as error:
            self._compiled.set_exception(error)

    def follow(self) -> None:
        """Loads it when it is there. Raises CompileError, VerifierError or OSError."""
        if self._is_due and self._compiled.done():
            self._is_due = False
            self._plane.load_rest(self._compiled.result())

    def wait(self) -> None:
        """Until everything is compiled: what is loaded from then on is whole. Raises what went wrong."""
        if self._is_due:
            self._compiled.result()

    def finish(self) -> None:
        """At once, in this thread. Raises CompileError, VerifierError or OSError."""
        if self._is_due:
            self._compile()
            self.follow()

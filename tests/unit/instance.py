"""An instance as far as its control socket goes, which is a real one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ram_ebpf.daemon.control import Answer, ControlSocket


@contextmanager
def replying(directory: Path, answer: Answer) -> Iterator[ControlSocket]:
    """One that answers so for as long."""
    control, ending = ControlSocket(directory), threading.Event()

    def serve() -> None:
        while not ending.is_set():
            if control.has_news():
                control.answer_with(answer)
            ending.wait(0.002)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield control
    finally:
        ending.set()
        thread.join()
        control.close()

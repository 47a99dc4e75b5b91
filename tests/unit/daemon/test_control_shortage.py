"""The socket by which an instance is asked, where the process has no descriptor left."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.daemon.control import ControlSocket


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlSocket]:
    with contextlib.closing(ControlSocket(tmp_path)) as found:
        yield found


@contextlib.contextmanager
def _no_descriptors() -> Iterator[None]:
    """Each that this process would get is beyond its limit."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_it_answers_again_after_a_shortage_of_descriptors(control: ControlSocket, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(5.0)
        with _no_descriptors():
            client.connect(str(tmp_path / f"{os.getpid()}.sock"))
            client.sendall(b'{"verb": "status"}\n')
            time.sleep(0.3)
        waiting = threading.Timer(
            1.0, lambda: control.answer_with(lambda request: {"asked": request["verb"]})
        )
        waiting.start()
        assert json.loads(client.recv(4096)) == {"asked": "status"}
        waiting.join()

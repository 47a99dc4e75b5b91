"""An instance that is too busy to accept who asks it, such as one that is stopped: it lives, and enforces."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ram_ebpf.cli import detach, down, instances
from ram_ebpf.daemon import control, stopping
from ram_ebpf.daemon.control import ControlSocket

_BUSY = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # it is not ended before it goes on
listener = socket.socket(socket.AF_UNIX)
listener.bind(f"{sys.argv[1]}/{os.getpid()}.sock")
listener.listen(0)
os.write(1, b"!")
sys.stdin.read()
"""


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The process of one that is stopped, with others waiting for it already."""
    with subprocess.Popen(
        [sys.executable, "-c", _BUSY, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"!"
        process.send_signal(signal.SIGSTOP)
        waiting = []
        try:
            while True:
                client = socket.socket(socket.AF_UNIX)
                waiting.append(client)
                client.setblocking(False)
                try:
                    client.connect(str(tmp_path / f"{process.pid}.sock"))
                except BlockingIOError:
                    break
            yield process
        finally:
            process.kill()
            for client in waiting:
                client.close()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands look there, and have little patience."""
    monkeypatch.setattr(control.running, "__defaults__", (tmp_path,))
    monkeypatch.setattr(control.ask_all, "__defaults__", (tmp_path, 0.1))
    monkeypatch.setattr(stopping, "PATIENCE", 0.1)


def test_it_lives(busy: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert control.running(tmp_path) == [busy.pid]
    assert control.dead_sockets(tmp_path) == []
    busy.kill()
    busy.wait()
    assert control.running(tmp_path) == []
    assert control.dead_sockets(tmp_path) == [tmp_path / f"{busy.pid}.sock"]


def test_a_second_instance_leaves_its_socket_alone(busy: subprocess.Popen[bytes], tmp_path: Path) -> None:
    ControlSocket(tmp_path).close()
    assert [path.name for path in tmp_path.iterdir()] == [f"{busy.pid}.sock"]


def test_one_with_the_same_number_too(tmp_path: Path) -> None:
    """Of another PID namespace, whose /run is ours."""
    first = ControlSocket(tmp_path)
    try:
        with pytest.raises(OSError, match="in use"):
            ControlSocket(tmp_path)
        assert control.running(tmp_path) == [os.getpid()]
    finally:
        first.close()


@pytest.mark.usefixtures("asked")
def test_commands(busy: subprocess.Popen[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """None of them takes it for dead."""
    arguments = argparse.Namespace(cgroup_root=tmp_path)  # which is none: nothing is removed, come what may
    assert detach.run(arguments) == os.EX_TEMPFAIL
    assert f"an instance runs (pid {busy.pid})" in capsys.readouterr().err
    assert down.run(arguments) == os.EX_TEMPFAIL
    assert f"kill -9 {busy.pid}, then do this again" in capsys.readouterr().err
    assert instances.ask({"verb": "status"}) == os.EX_TEMPFAIL
    assert "an instance does not answer" in capsys.readouterr().err

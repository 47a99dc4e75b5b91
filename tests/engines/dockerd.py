"""A real dockerd on a machine of its own, and the docker command beside it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.lab.node import Node
from tests.lab.processes import Finished

from . import runtime
from .machine import Machine

_PATIENCE = 30.0
_RELOADED = "Reloaded configuration"
# It raises the limits of keys, which are those of the whole machine that the tests run on.
_SCRIPT = """\
mount --bind /proc/sys/kernel /proc/sys/kernel
mount -o remount,bind,ro /proc/sys/kernel
exec "$@"
"""


class Dockerd:
    """dockerd with docker0 on a machine, for the time of a `with` block; it ends with the machine.

    It is in `cgroup`; its containers are in `containers`, beside that, as they are on a host with systemd.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.cgroup = machine.cgroup("dockerd")
        self._log = machine.share / "dockerd.log"
        self._pidfile = machine.share / "docker.pid"

    def __enter__(self) -> Dockerd:
        self._start()
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.machine.node.stop(self._process)

    @property
    def node(self) -> Node:
        """The machine's network."""
        return self.machine.node

    @property
    def pid(self) -> int:
        """The machine's first process."""
        return self.machine.pid

    @property
    def url(self) -> str:
        """Where its API is."""
        return self.machine.url

    @property
    def env(self) -> dict[str, str]:
        """By which its clients find it."""
        return self.machine.env

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def run(self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 60.0) -> Finished:
        """Run the docker command."""
        return self.machine.run(
            ["docker", *words], env={"DOCKER_HOST": self.url, **(env or {})}, timeout=timeout
        )

    def reload(self, settings: Mapping[str, object]) -> None:
        """Have it read other settings (SIGHUP), and wait until it has. Not all may change while it runs."""
        before = self.log().count(_RELOADED)
        file = self.machine.write("daemon.json", json.dumps(settings))
        script = (
            f"mkdir -p /etc/docker && cp {file} /etc/docker/daemon.json && kill -HUP $(cat {self._pidfile})"
        )
        self.machine.run(["sh", "-ec", script]).check()
        deadline = time.monotonic() + _PATIENCE
        while self.log().count(_RELOADED) == before:
            if time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not take its settings: {self.log()[-3000:]}")
            time.sleep(0.01)

    def ask_plugin(self, name: str) -> None:
        """Have it know where the socket of a plugin is that ram-ebpf serves; `reload` has it asked."""
        folder = "/etc/docker/plugins"
        file = self.machine.write(f"{name}.spec", f"unix://{self.machine.plugins / name}.sock\n")
        self.machine.run(["sh", "-ec", f"mkdir -p {folder} && cp {file} {folder}/"]).check()

    def _start(self) -> None:
        words = [
            *("unshare", "--mount", "--propagation", "slave", "sh", "-ec", _SCRIPT, "sh"),
            "dockerd",
            f"--host={self.url}",
            f"--pidfile={self._pidfile}",
            "--cgroup-parent=/containers",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            *runtime.options(self.machine),
        ]
        if self.machine.suite == "bookworm":
            words.append(
                "--oom-score-adjust=0"
            )  # its default wants a right that root may lack; later ones don't
        with self._log.open("w", encoding="utf-8") as log:
            self._process = self.machine.popen(words, self.cgroup, stdout=log)

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not _answers(self.machine.share / "docker.sock"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"dockerd does not start: {self.log()[-3000:]}")
            time.sleep(0.02)


def _answers(path: Path) -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_PATIENCE)
        client.connect(str(path))
        client.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return client.recv(64).startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
    return False

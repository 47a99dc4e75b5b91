"""A real journal of systemd's: in a mount namespace with a /run of its own, where nobody else finds it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

_STREAM = "/run/systemd/journal/stdout"
_FOLDER = "/run/log/journal"
# Nothing of the kernel's log, and the kernel's auditing as it was.
_START = """\
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log
echo '[Journal]' > /run/systemd/journald.conf.d/test.conf
printf '%s\\n' Storage=volatile Audit= ReadKMsg=no RuntimeMaxUse=16M >> /run/systemd/journald.conf.d/test.conf
exec /lib/systemd/systemd-journald
"""


class Journald:
    """From entry, when it takes lines, until exit."""

    def __enter__(self) -> Journald:
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _START]
        self._process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        try:
            while not os.path.lexists(f"/proc/{self._process.pid}/root{_STREAM}"):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("systemd-journald does not start")
                time.sleep(0.02)
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
        self._process.terminate()
        self._process.wait(10)

    @property
    def inside(self) -> list[str]:
        """What a command begins with that is to find this journal."""
        return ["nsenter", f"--mount=/proc/{self._process.pid}/ns/mnt", f"--wdns={Path.cwd()}", "--"]

    @property
    def command(self) -> list[str]:
        """What a command begins with whose standard output is to be this journal, as systemd makes it."""
        return [*self.inside, sys.executable, "-m", "tests.lab.journald"]

    def entries(self) -> list[dict[str, Any]]:
        """All that is in it."""
        argv = [*self.inside, "journalctl", f"--directory={_FOLDER}", "--output=json", "--no-pager", "--all"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def wait(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 10) -> dict[str, Any]:
        """The first entry that meets a condition; TimeoutError if none comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for entry in self.entries():
                if condition(entry):
                    return entry
            time.sleep(0.1)
        raise TimeoutError(f"the journal has {self.entries()[-5:]}")


def become(argv: list[str]) -> None:
    """Runs another program with its standard output in the journal, which the environment says."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(_STREAM)
    # Identifier, unit, priority, whether lines may say another one, and where else they go.
    stream.sendall(b"test\n\n6\n0\n0\n0\n0\n")
    status = os.fstat(stream.fileno())
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    os.dup2(stream.fileno(), 1)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    become(sys.argv[1:])

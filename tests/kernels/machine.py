"""The guest as a QEMU process, whose console is ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from .errors import RunError
from .prepare import PROJECT

QEMU = "qemu-system-x86_64"
_PACKAGE = "qemu-system-x86"
_INIT = Path(__file__).with_name("guest_init.sh")

# 9p: `loose` keeps what was read once, without which Python starts in twice the time; msize is QEMU's limit.
_ROOT = "root=/dev/root rootfstype=9p rootflags=trans=virtio,version=9p2000.L,msize=512000,cache=loose ro"
# panic=-1 ends the machine at once, together with -no-reboot. Clock and mitigations only cost time here.
_BASE = "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable dummy.numdummies=0"


@dataclass(frozen=True)
class Machine:
    """What the guest is made of."""

    kernel: Path
    share: Path
    accelerator: str
    memory: str
    append: str = ""

    def command(self) -> list[str]:
        """QEMU's command line."""
        qemu = shutil.which(QEMU)
        if qemu is None:
            raise RunError(f"{QEMU} is not installed: install the Debian package {_PACKAGE}")
        init = f'init=/bin/sh -- "{_INIT}" "{sys.executable}" "{PROJECT}"'
        return [
            qemu,
            *("-accel", self.accelerator),
            *("-cpu", "max"),  # with the instructions that TLS and hashes use
            *("-smp", str(min(os.cpu_count() or 1, 4))),
            *("-m", self.memory),
            *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
            *("-device", "virtio-rng-pci"),  # or the first TLS key waits for entropy
            *_share("root", Path("/"), "/dev/root", "readonly=on,multidevs=remap"),
            *_share("share", self.share, "ram-share", "multidevs=remap"),
            *("-kernel", str(self.kernel)),
            *("-append", f"{_BASE} {_ROOT} {self.append} {init}"),
        ]

    def run(self, seconds: float) -> bool:
        """Runs the guest to its end; False when it had to be killed. Its console is shown and kept."""
        with subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            late = threading.Event()

            def kill() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(seconds, kill)
            timer.start()
            try:
                self._copy_console(process)
            finally:
                timer.cancel()
                process.kill()
        return not late.is_set()

    @property
    def console(self) -> Path:
        """Where everything is kept that the console showed."""
        return self.share / "console.log"

    def _copy_console(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with self.console.open("wb") as log:
            while data := os.read(process.stdout.fileno(), 65536):
                text = data.replace(b"\r", b"")
                log.write(text)
                sys.stdout.write(text.decode("utf-8", errors="replace"))
                sys.stdout.flush()


def _share(name: str, path: Path, tag: str, options: str) -> list[str]:
    escaped = str(path).replace(",", ",,")
    device = f"local,id={name},path={escaped},security_model=none,{options}"
    return ["-fsdev", device, "-device", f"virtio-9p-pci,fsdev={name},mount_tag={tag}"]

"""A machine with a real systemd as its first process: a root, and namespaces of every kind.

Its control groups are a directory of this machine's, its network leads to one more namespace and no further,
and what it could change of the kernel as a whole is mounted read-only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from ram_ebpf.scopes.cgroup import find_cgroup2_mount

PATIENCE = 90.0  # seconds
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Words: the control group that becomes the root of a namespace, and the root directory. On a real host
# systemd would tell the kernel what it is to be like, and give it modules: neither can be done in here.
_SCRIPT = """\
echo 0 >"$1/cgroup.procs" || exit 125
exec unshare --cgroup --pid --fork --kill-child --mount --uts --ipc --net --propagation private sh -ec '
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t bpf -o mode=700 bpf "$root/sys/fs/bpf"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm"
while read name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
END
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir -p "$root/.old"
cd "$root"
pivot_root . .old
umount -l /.old
mount --make-rshared /
hostname machine
exec env --ignore-environment container=ram-ebpf PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio /sbin/init --show-status=no
' sh "$2"
"""


class Machine:
    """One that has booted, for the time of a `with` block. `root` is changed by it."""

    def __init__(self, root: Path, name: str) -> None:
        self._root = root
        self._log = root.parent / "boot.log"
        self._cgroup = find_cgroup2_mount() / f"ram-ebpf-package-{os.getpid()}-{name}"

    def __enter__(self) -> Machine:
        self._cgroup.mkdir()
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", _SCRIPT, "machine", str(self._cgroup), str(self._root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self.wait(self._find_first, "a first process")
            self.wait(lambda: self.state() in ("running", "degraded"), "the end of the boot")
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
        self._process.send_signal(signal.SIGKILL)  # its first process goes with it, and takes the rest along
        self._process.wait()
        while "populated 1" in (self._cgroup / "cgroup.events").read_text(encoding="ascii"):
            time.sleep(0.05)
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            Path(directory).rmdir()

    def _find_first(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the machine does not start: {self._log.read_text(encoding='utf-8')}")
        for file in self._cgroup.rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                for pid in file.read_text(encoding="ascii").split():
                    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
                    numbers = next(line.split()[1:] for line in status if line.startswith("NSpid:"))
                    is_init = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") == "systemd\n"
                    if numbers[1:] == ["1"] and is_init:
                        self._first = pid
                        return True
        return False

    def state(self) -> str:
        """What systemd says of the whole."""
        return self.run("systemctl is-system-running", check=False).strip()

    def run(self, script: str, check: bool = True) -> str:
        """Run a script of bash in there, and return what it said. RuntimeError where it fails."""
        enter = [f"--target={self._first}", "--mount", "--uts", "--ipc", "--pid", "--net", "--cgroup"]
        known = [
            f"PATH={_PATH}",
            "HOME=/root",
            "LANG=C.UTF-8",
            "SYSTEMD_PAGER=",
            "DEBIAN_FRONTEND=noninteractive",
        ]
        done = subprocess.run(
            ["nsenter", *enter, "--", "env", "--ignore-environment", *known, "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=4 * PATIENCE,
        )
        if check and done.returncode:
            said = f"{script!r} ended with {done.returncode}: {done.stdout}{done.stderr}"
            if script.startswith("systemctl"):  # which does not say why
                said += self.run("journalctl --lines=30 --output=short-precise", check=False)
            raise RuntimeError(said)
        return done.stdout + done.stderr

    def wait(self, condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Until a condition is met; TimeoutError when it is not."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come in {patience:.0f} s")
            time.sleep(0.2)

    def write(self, path: str, content: str) -> None:
        """Write a file in there."""
        target = Path(f"/proc/{self._first}/root") / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")

    def copy(self, file: Path, path: str) -> None:
        """Copy a file of ours into it."""
        shutil.copyfile(file, Path(f"/proc/{self._first}/root") / path.lstrip("/"))

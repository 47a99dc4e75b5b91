"""A machine of its own for an engine: a Debian suite's files, and namespaces of every kind that matters.

Its first process does nothing; when it is killed, all that runs in there dies with it, and with the last
process go the mounts and the networks. Nothing of the machine that the tests run on is in reach: not its
/run, /etc and /var, where engines leave sockets, keys and images, and not its control groups.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pyroute2 import IPRoute, netns

from tests.lab import cgroups, topology
from tests.lab.docker import plug
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.processes import Finished, Stream

from . import trees

USER = 1000  # of somebody who is not root
_PATIENCE = 10.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
_numbers = itertools.count(150)  # of addresses at the lab's switch; see tests/lab/topology.py

# Words: the control group that becomes the root of a namespace, the tree, and the machine's directory, of
# which a part is seen under the same path from inside. Nothing is mounted on /proc, or nobody but root could
# mount one for a container.
_SCRIPT = """\
echo 0 >"$1/cgroup.procs" || exit 125
shift
exec unshare --cgroup --pid --fork --kill-child --mount --uts --ipc --propagation private sh -ec '
tree=$1 top=$2 root=$2/root
mount -t overlay -o "lowerdir=$tree,upperdir=$top/upper,workdir=$top/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/net"
while read name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<END
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
net/tun 10 200
END
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount --bind "$top/lib" "$root/var/lib"
mount --bind "$top/home" "$root/home"
mkdir -p "$root$top/share"
mount --bind "$top/share" "$root$top/share"
cd "$root"
pivot_root . .old
umount -l /.old
mount --make-rshared /
busybox hostname engine
: >"$top/share/ready"
while :; do sleep 1000; done
' sh "$@"
"""

# For podman and buildah. Root may not be allowed to raise limits, and there is no systemd.
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""


class Machine:
    """One of a suite, for the time of a `with` block."""

    def __init__(self, lab: Lab, directory: Path, suite: str, name: str) -> None:
        self.suite = suite
        self.top = lab.new_cgroup(name)
        self.share = directory / "share"
        self._directory = directory
        self._clients = lab.new_cgroup(f"{name}/clients")
        role = topology.Role(name, (f"10.77.0.{next(_numbers)}",))
        self.node = Node(role, plug(lab, role), lab.client.services, lab.directory / name, lab.ca)
        self._lab = lab
        with IPRoute(netns=self.node.namespace.name) as netlink:
            netlink.route("add", dst="default", gateway=topology.GATEWAY)

    def __enter__(self) -> Machine:
        tree = trees.tree(self.suite)
        for part in ("root", "upper", "work", "lib", "home", "share"):
            (self._directory / part).mkdir(parents=True)
        _write(self._directory / "upper", self._files())
        words = [str(self.top), str(tree), str(self._directory)]
        log = self._directory / "log"
        with log.open("w", encoding="utf-8") as file:
            self._process = self.node.popen(
                ["sh", "-c", _SCRIPT, "machine", *words], stdout=file, stderr=subprocess.STDOUT
            )
        try:
            deadline = time.monotonic() + _PATIENCE
            while not (self.share / "ready").exists():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the machine does not start: {log.read_text(encoding='utf-8')}")
                time.sleep(0.01)
            self.pid = self._first()
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
        # Its first process goes with the one that waits for it, and takes the rest along.
        self._process.send_signal(signal.SIGKILL)
        self.node.close()
        self._wait_dead()
        netns.remove(self.node.namespace.name)
        shutil.rmtree(self._directory)

    @property
    def url(self) -> str:
        """Where Docker's API is, if there is a dockerd."""
        return f"unix://{self.share / 'docker.sock'}"

    @property
    def env(self) -> dict[str, str]:
        """By which clients find that, and ram-ebpf where to serve Docker's authorization plugin."""
        return {"DOCKER_HOST": self.url, "RAM_EBPF_DOCKER_PLUGINS": str(self.plugins)}

    @property
    def plugins(self) -> Path:
        """Of sockets of Docker's plugins."""
        return self.share / "plugins"

    def cgroup(self, name: str) -> Path:
        """Make a further control group in the machine's."""
        path = self.top / name
        path.mkdir(exist_ok=True)
        return path

    def run(
        self,
        argv: Sequence[str],
        *,
        cgroup: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float = 60.0,
    ) -> Finished:
        """Run a program to its end; the seconds include some 20 ms for getting in."""
        result = self.node.run(
            self._inside(argv, env), cgroup=cgroup or self._clients, stdin=stdin, timeout=timeout
        )
        return Finished(tuple(argv), result.returncode, result.stdout, result.stderr, result.seconds)

    def popen(
        self,
        argv: Sequence[str],
        cgroup: Path,
        env: Mapping[str, str] | None = None,
        stdout: Stream = None,
    ) -> subprocess.Popen[str]:
        """Start a program in the background."""
        return self.node.popen(
            self._inside(argv, env), cgroup=cgroup, stdout=stdout, stderr=subprocess.STDOUT
        )

    def write(self, path: str, content: str | bytes) -> Path:
        """Write a file that both sides see under the same path; `path` is relative."""
        target = self.share / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def _inside(self, argv: Sequence[str], env: Mapping[str, str] | None) -> list[str]:
        # Nothing of the caller's environment: it may name files that are not in there.
        known = {"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **(env or {})}
        words = [f"{key}={value}" for key, value in known.items()]
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--pid", "--cgroup"]
        return [*enter, "--", "env", "--ignore-environment", *words, *argv]

    def _first(self) -> int:
        """The process that is number 1 inside."""
        for pid in cgroups.members(self.top):
            status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
            numbers = next(line.split()[1:] for line in status if line.startswith("NSpid:"))
            if numbers[1:] == ["1"]:
                return pid
        raise RuntimeError("the machine's first process has ended")

    def _wait_dead(self) -> None:
        # A directory in use by a mount cannot be removed.
        deadline = time.monotonic() + _PATIENCE
        while any(cgroups.members(path) for path in [self.top, *self.top.rglob("*")] if path.is_dir()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"something of {self.top} does not end")
            time.sleep(0.01)

    def _files(self) -> dict[str, str]:
        return {
            "etc/resolv.conf": f"nameserver {topology.RESOLVER}\n",
            "etc/hosts": "127.0.0.1 localhost engine\n",
            "etc/nsswitch.conf": "hosts: files dns\npasswd: files\ngroup: files\n",
            "etc/passwd": f"root:x:0:0:root:/root:/bin/sh\nbuilder:x:{USER}:{USER}::/home/builder:/bin/sh\n",
            "etc/group": f"root:x:0:\nbuilder:x:{USER}:\n",
            "etc/subuid": "builder:100000:65536\n",
            "etc/subgid": "builder:100000:65536\n",
            "etc/ssl/certs/ca-certificates.crt": self._lab.ca.read_text(encoding="utf-8"),
            "etc/containers/policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
            "etc/containers/containers.conf": _CONTAINERS,
        }


def _write(top: Path, files: Mapping[str, str]) -> None:
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

"""A real containerd in a lab with its CRI and CNI plugins, as on a Kubernetes node without the kubelet.

It lives as the lab's dockerd does, see docker.py. There /var/lib is empty as well, since CNI keeps a cache
in it whatever it is told. Process 1 of its PID namespace is a shell that starts containerd again whenever it
has ended, so its containers outlive it, as they do on a node.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
from pyroute2 import netns

from . import cgroups, cri, programs, topology
from .cri import Cri
from .docker import plug
from .lab import Lab
from .node import Node
from .processes import Finished

CNI_PLUGINS = Path("/usr/lib/cni")  # of the package containernetworking-plugins
_PATIENCE = 20.0
_addresses = (f"10.77.0.{number}" for number in range(60, 70))

# Words: the control group that becomes the root of a namespace, the place of containerd's below it, a file
# that is there while containerd is not to run, and its command line.
_SCRIPT = """\
echo 0 >"$1/cgroup.procs" || exit 125
shift
exec unshare --cgroup --pid --fork --kill-child --mount-proc sh -c '
mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
echo 0 >"/sys/fs/cgroup/$1/cgroup.procs" &&
for directory in /run /opt /var/lib; do mount -t tmpfs -o mode=755 tmpfs "$directory" || exit 125; done &&
halted=$2 || exit 125
shift 2
while :; do
    [ -e "$halted" ] || "$@"
    sleep 0.05
done
' sh "$@"
"""

# The plugin would limit the CPU of sandboxes, for which version 2 of control groups has no controller where
# version 1 has it. So it leaves control groups to runc, which makes one for each container. Without
# CAP_SYS_RESOURCE no OOM score can be lowered.
_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
disable_cgroup = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{directory}/cni"
"""
_NETWORK = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/24"}]]},
        }
    ],
}


class ContainerdError(RuntimeError):
    """It did not start."""


class Pod:
    """A sandbox with one container in it."""

    def __init__(self, containerd: Containerd, name: str, labels: Mapping[str, str], network: int) -> None:
        self._containerd = containerd
        self._config = cri.sandbox(name, labels, network)
        self.sandbox = containerd.call("RunPodSandbox", config=self._config).pod_sandbox_id
        self.container = ""

    @property
    def cgroup(self) -> Path:
        """That of its container."""
        return self._containerd.top / self.container

    @property
    def pid(self) -> int:
        """The first process of its container."""
        return cgroups.members(self.cgroup)[0]

    def start(self, name: str, command: Sequence[str], attempt: int = 0) -> None:
        """Start its container, or another one in the place of the last."""
        self.container = self._containerd.call(
            "CreateContainer",
            pod_sandbox_id=self.sandbox,
            config={
                "metadata": {"name": name, "attempt": attempt},
                "image": {"image": self._containerd.image},
                "command": command,
                "labels": {"io.kubernetes.container.name": name},
                "linux": {
                    "security_context": {
                        "namespace_options": self._config.linux.security_context.namespace_options
                    }
                },
            },
            sandbox_config=self._config,
        ).container_id
        self._containerd.call("StartContainer", container_id=self.container)

    def stop(self) -> None:
        """End its container."""
        self._containerd.call("StopContainer", container_id=self.container, timeout=0)

    def run(self, argv: Sequence[str]) -> Finished:
        """Run a program of the image in its container, as `kubectl exec` does."""
        started = time.perf_counter()
        answer = self._containerd.call("ExecSync", container_id=self.container, cmd=argv, timeout=15)
        seconds = time.perf_counter() - started
        out, err = (text.decode(errors="replace") for text in (answer.stdout, answer.stderr))
        return Finished(tuple(argv), answer.exit_code, out, err, seconds)

    def remove(self) -> None:
        """Kill and remove it."""
        self._containerd.call("StopPodSandbox", pod_sandbox_id=self.sandbox)
        self._containerd.call("RemovePodSandbox", pod_sandbox_id=self.sandbox)


class Containerd:
    """containerd for the time of a `with` block; it does not run until start() is called.

    `image` is that of all containers, those of the sandboxes included.
    """

    def __init__(self, lab: Lab, directory: Path, name: str, image: str) -> None:
        self._containerd = programs.find("containerd")
        if not (CNI_PLUGINS / "bridge").exists():
            package = "containernetworking-plugins"
            raise programs.MissingProgramError(
                f"the lab needs CNI's bridge: install the Debian package {package}"
            )
        self.image = image
        self.top = lab.new_cgroup(name)
        self._cgroup = lab.new_cgroup(f"{name}/engine")
        self._directory = directory
        self.socket = directory / "containerd.sock"
        self._halted = directory / "halted"
        self._log = directory / "log"
        self._ca = lab.ca
        role = topology.Role(name, (next(_addresses),))
        self.node = Node(role, plug(lab, role), lab.client.services, lab.directory / name, lab.ca)

    @property
    def env(self) -> dict[str, str]:
        """By which ram-ebpf and crictl find it."""
        return {"CONTAINER_RUNTIME_ENDPOINT": f"unix://{self.socket}"}

    def __enter__(self) -> Containerd:
        config = self._directory / "config.toml"
        config.write_text(
            _CONFIG.format(directory=self._directory, pause=self.image, plugins=CNI_PLUGINS), encoding="utf-8"
        )
        network = self._directory / "cni" / "10-pods.conflist"
        network.parent.mkdir()
        network.write_text(json.dumps(_NETWORK), encoding="utf-8")
        authority = self._directory / "ca.crt"  # the lab's own is below /run
        shutil.copy(self._ca, authority)
        self._halted.touch()
        words = [str(self.top), str(self._cgroup.relative_to(self.top)), str(self._halted)]
        command = ["sh", "-c", _SCRIPT, "containerd", *words, self._containerd, f"--config={config}"]
        env = {"SSL_CERT_FILE": str(authority), "HOME": str(self._directory), "TMPDIR": str(self._directory)}
        with self._log.open("w", encoding="utf-8") as log:
            self._process = self.node.popen(
                command, env={**env, "XDG_RUNTIME_DIR": ""}, stdout=log, stderr=subprocess.STDOUT
            )
        self._cri = Cri(self.socket)
        try:
            deadline = time.monotonic() + _PATIENCE
            while not cgroups.members(self._cgroup):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ContainerdError("the shell that starts containerd has ended")
                time.sleep(0.01)
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
        self._cri.close()
        # All that it has started dies with process 1 of its PID namespace.
        for pid in cgroups.members(self._cgroup):
            if pid != self._process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.node.stop(self._process)
        netns.remove(self.node.namespace.name)
        shutil.rmtree(self._directory)

    @property
    def pid(self) -> int:
        """Some process of its namespaces, also while containerd does not run."""
        return cgroups.members(self._cgroup)[0]

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def call(self, method: str, **fields: Any) -> Any:
        """Call its CRI; see Cri.call."""
        return self._cri.call(method, **fields)

    def start(self) -> None:
        """Let it run, and wait until it does."""
        self._halted.unlink(missing_ok=True)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._cri.call("Version", wait=True)
                return
            except grpc.RpcError as error:
                if time.monotonic() > deadline:
                    raise ContainerdError(f"containerd did not start: {self.log()[-2000:]}") from error
                time.sleep(0.02)

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """It is killed, and started again afterwards; its containers live on meanwhile."""
        self._halted.touch()
        for pid in cgroups.members(self._cgroup):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") == "containerd\n":
                    os.kill(pid, signal.SIGKILL)
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def pod(
        self,
        name: str,
        container: str,
        command: Sequence[str],
        labels: Mapping[str, str] | None = None,
        network: int = cri.POD,
    ) -> Iterator[Pod]:
        """A pod with a running container; it is removed afterwards."""
        pod = Pod(self, name, labels or {}, network)
        try:
            pod.start(container, command)
            yield pod
        finally:
            pod.remove()

"""A real dockerd in a lab, and containers on a network of their own, whose resolver is 127.0.0.11.

It is Debian's, unpacked aside, since installing its package would start one on the machine. It lives in
namespaces of every kind that matters: of processes, so that all of it dies with it; of control groups, so
that it sees and touches none but the lab's, and none of version 1; of networks, at the lab's switch; and of
mounts, where /run is empty, since containerd and runc leave sockets and mounts there whatever they are told.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from pyroute2 import IPRoute, netns

from . import cgroups, namespaces, network, topology
from .lab import Lab
from .namespaces import Namespace
from .node import Node
from .processes import Finished
from .servers import aside

RESOLVER = "127.0.0.11"

# Each has an address of its own, as several may run at a time.
_addresses = (f"10.77.0.{number}" for number in range(70, 100))
NETWORK = "containers"
_BRIDGE = "bridge"  # of the lab's switch; see network.py
_PATIENCE = 20.0
_STREAM_HEADER = struct.Struct(">BxxxI")  # Docker's API, "Attach to a container": stream, size
_STDERR = 2
_RELOADED = "Reloaded configuration"

# Words: the control group that becomes the root of a namespace, the place of dockerd's below it, the place
# of plugins' sockets, and its command line. /proc/sys/kernel is made read-only, as dockerd raises the
# machine's limits of keys; in /opt containerd makes a directory.
_SCRIPT = """\
echo 0 >"$1/cgroup.procs" || exit 125
shift
exec unshare --cgroup --pid --fork --kill-child --mount-proc sh -ec '
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo 0 >"/sys/fs/cgroup/$1/cgroup.procs"
plugins=$2
shift 2
mount --bind /proc/sys/kernel /proc/sys/kernel
mount -o remount,bind,ro /proc/sys/kernel
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir -p /run/docker/plugins
mount --bind "$plugins" /run/docker/plugins
exec "$@"
' sh "$@"
"""


class DockerError(RuntimeError):
    """What dockerd answered in the place of what was wanted."""


@dataclass(frozen=True)
class _ProcessNamespace(Namespace):
    """The network namespace that a process is in."""

    pid: int

    @property
    def path(self) -> Path:
        return Path(f"/proc/{self.pid}/ns/net")


class Container:
    """A running container, which does nothing but wait."""

    def __init__(self, docker: Docker, identifier: str) -> None:
        self.identifier = identifier
        self.cgroup = docker.top / docker.parent / identifier
        self.pid = next(iter(cgroups.members(self.cgroup)), 0)  # 0: it has ended already
        self._docker = docker

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Finished:
        """Run a program of the image in the container, as `docker exec` does."""
        started = time.perf_counter()
        wanted: dict[str, object] = {"Cmd": argv, "AttachStdout": True, "AttachStderr": True}
        wanted["Env"] = [f"{key}={value}" for key, value in (env or {}).items()]
        number = self._docker.call("POST", f"/containers/{self.identifier}/exec", wanted)["Id"]
        stdout, stderr = _split(self._docker.send("POST", f"/exec/{number}/start", {"Detach": False}))
        code = self._docker.call("GET", f"/exec/{number}/json")["ExitCode"]
        return Finished(tuple(argv), int(code), stdout, stderr, time.perf_counter() - started)

    def node(self, directory: Path) -> Node:
        """A node whose programs are the machine's, in the container's network and control group."""
        namespace = _ProcessNamespace(self.identifier[:12], self.pid)
        return Node(topology.Role("container", ()), namespace, self.cgroup, directory, self._docker.ca)


class Docker:
    """dockerd for the time of a `with` block.

    `nested`: it lives in a control group above those of its containers, as one does that itself is in a
    container, or that somebody started by hand. `parent`: the control group of its containers.
    """

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        name: str = "docker",
        nested: bool = False,
        parent: str = "containers",
    ) -> None:
        self.parent = parent
        self.top = lab.new_cgroup(name)
        self.cgroup = self.top if nested else lab.new_cgroup(f"{name}/engine")
        self.ca = lab.ca
        self._directory = directory
        self._socket = directory / "docker.sock"
        self._log = directory / "log"
        self._settings = directory / "daemon.json"
        self.plugins = directory / "plugins"  # what it finds in /run/docker/plugins
        role = topology.Role(name, (next(_addresses),))
        self.node = Node(role, plug(lab, role), lab.client.services, lab.directory / name, lab.ca)

    def __enter__(self) -> Docker:
        self._start()
        try:
            self._wait()
            self.call("POST", "/networks/create", {"Name": NETWORK})
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
        # Killed, as it would give each container ten seconds. All that it has started dies with it, being in
        # its PID namespace; the process that waits for it takes its exit status.
        for pid in cgroups.members(self.cgroup):
            if pid != self._process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.node.stop(self._process)
        netns.remove(self.node.namespace.name)
        shutil.rmtree(self._directory)

    def kill(self) -> None:
        """End it at once, with all that it runs, and nothing else that lives in its control group."""
        os.kill(self.pid, signal.SIGKILL)
        self.node.stop(self._process)

    def start_again(self) -> None:
        """Start it behind kill(). What it has on disk is still there."""
        self._start()
        self._wait()

    @property
    def pid(self) -> int:
        """The process."""
        for pid in cgroups.members(self.cgroup):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8") == "dockerd\n":
                    return pid
        raise DockerError(f"dockerd has ended: {self.log()[-2000:]}")

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def pull(self, reference: str) -> Finished:
        """Pull an image, such as allowed.registry.test/lab/hello:1."""
        started = time.perf_counter()
        repository, _, tag = reference.rpartition(":")
        code, said = 0, ""
        try:
            query = urlencode({"fromImage": repository, "tag": tag})
            for line in self.send("POST", f"/images/create?{query}").splitlines():
                progress = json.loads(line)
                if "error" in progress:
                    code, said = 1, str(progress["error"])
        except DockerError as error:
            code, said = 1, str(error)
        return Finished(("docker", "pull", reference), code, "", said, time.perf_counter() - started)

    @property
    def url(self) -> str:
        """Where its API is."""
        return f"unix://{self._socket}"

    @property
    def env(self) -> dict[str, str]:
        """By which its clients find it."""
        return {"DOCKER_HOST": self.url, "RAM_EBPF_DOCKER_PLUGINS": str(self.plugins)}

    def reload(self, settings: Mapping[str, object]) -> None:
        """Have it read other settings (SIGHUP), and wait until it has. Not all may change while it runs."""
        before = self.log().count(_RELOADED)
        self._write_settings(settings)
        os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + _PATIENCE
        while self.log().count(_RELOADED) == before:
            if time.monotonic() > deadline:
                raise DockerError(f"dockerd does not take its settings: {self.log()[-2000:]}")
            time.sleep(0.01)

    def command(self, *words: str, stdin: str = "", buildkit: bool = False) -> Finished:
        """Run Docker's own command, of the same package."""
        docker = aside.of_package("docker", "docker.io")
        env = {
            **docker.env,
            **self.env,
            "DOCKER_CONFIG": str(self._directory),
            "DOCKER_BUILDKIT": str(int(buildkit)),
        }
        return self.node.run([str(docker.path), *words], env=env, stdin=stdin)

    def raw(self, request: bytes) -> tuple[int, bytes]:
        """Send bytes to its API, and return the status and all that is said behind the header."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_PATIENCE)
            client.connect(str(self._socket))
            with contextlib.suppress(BrokenPipeError):  # it has answered before the end
                client.sendall(request)
            response = http.client.HTTPResponse(client)
            response.begin()
            return response.status, response.read()

    def run(
        self,
        image: str,
        argv: Sequence[str],
        name: str = "",
        labels: Mapping[str, str] | None = None,
        network: str = NETWORK,
    ) -> Container:
        """Run a container in the background, as `docker run --detach` does."""
        wanted = {"Image": image, "Cmd": argv, "Labels": labels or {}, "HostConfig": {"NetworkMode": network}}
        created = self.call("POST", f"/containers/create{f'?name={name}' if name else ''}", wanted)
        self.call("POST", f"/containers/{created['Id']}/start")
        return Container(self, created["Id"])

    def remove(self, container: Container) -> None:
        """Kill and remove a container."""
        self.call("DELETE", f"/containers/{container.identifier}?force=true")

    def call(self, method: str, path: str, content: object = None) -> Any:
        """Call Docker's API and return the JSON that it answers, None for nothing."""
        said = self.send(method, path, content)
        return json.loads(said) if said else None

    def send(self, method: str, path: str, content: object = None) -> bytes:
        """Call Docker's API and return what it answers. Raises DockerError for an error."""
        with contextlib.closing(_Connection(self._socket)) as connection:
            body = None if content is None else json.dumps(content)
            connection.request(method, f"/v1.41{path}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            said = response.read()
        if response.status >= 400:
            raise DockerError(f"{method} {path}: {json.loads(said)['message']}")
        return said

    def _start(self) -> None:
        dockerd = aside.find("dockerd")
        self.plugins.mkdir(parents=True, exist_ok=True)
        authority = self._directory / "ca.crt"  # the lab's own is below /run
        shutil.copy(self.ca, authority)
        # In the place of the machine's, which is not to be read; nor is a key to be made beside it.
        self._write_settings()
        words = [
            *(str(self.top), str(self.cgroup.relative_to(self.top)), str(self.plugins)),
            *(
                str(dockerd.path),
                f"--config-file={self._settings}",
                f"--data-root={self._directory / 'data'}",
            ),
            f"--host=unix://{self._socket}",
            f"--cgroup-parent=/{self.parent}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--storage-driver=vfs",
            "--bridge=none",
            "--userland-proxy=false",
            "--oom-score-adjust=0",
        ]
        env = {**dockerd.env, "SSL_CERT_FILE": str(authority), "HOME": str(self._directory)}
        env |= {"TMPDIR": str(self._directory), "XDG_RUNTIME_DIR": ""}
        with self._log.open("w", encoding="utf-8") as log:
            self._process = self.node.popen(
                ["sh", "-c", _SCRIPT, "docker", *words], env=env, stdout=log, stderr=subprocess.STDOUT
            )

    def _write_settings(self, settings: Mapping[str, object] | None = None) -> None:
        usual = {"deprecated-key-path": str(self._directory / "key.json")}
        self._settings.write_text(json.dumps({**usual, **(settings or {})}))

    def _wait(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError):
                self.send("GET", "/_ping")
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DockerError(f"dockerd did not start: {self.log()[-2000:]}")
            time.sleep(0.01)


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def plug(lab: Lab, role: topology.Role) -> Namespace:
    """Make a further namespace at the lab's switch."""
    namespace = namespaces.create(lab.label, role.name)
    with IPRoute(netns=f"{namespace.name.removesuffix(role.name)}switch") as netlink:
        (bridge,) = netlink.link_lookup(ifname=_BRIDGE)
        peer = {"ifname": network.INTERFACE, "net_ns_fd": namespace.name}
        netlink.link("add", ifname=role.name, kind="veth", peer=peer)
        (cable,) = netlink.link_lookup(ifname=role.name)
        netlink.link("set", index=cable, master=bridge, state="up")
    with IPRoute(netns=namespace.name) as netlink:
        for device in ("lo", network.INTERFACE):
            (index,) = netlink.link_lookup(ifname=device)
            netlink.link("set", index=index, state="up")
    network.add_addresses(namespace, role.addresses)
    return namespace


def _split(stream: bytes) -> tuple[str, str]:
    """What a program wrote to stdout and stderr, which come in pieces, each with a header."""
    said = {False: b"", True: b""}
    while stream:
        number, size = _STREAM_HEADER.unpack_from(stream)
        said[number == _STDERR] += stream[_STREAM_HEADER.size : _STREAM_HEADER.size + size]
        stream = stream[_STREAM_HEADER.size + size :]
    return said[False].decode(errors="replace"), said[True].decode(errors="replace")

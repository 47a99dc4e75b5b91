"""Containers of a Docker daemon (or of podman's compatible service), by its API.

Its stream of events says when to look; what is there is always listed anew, so that an event that was lost
loses no container.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import requests

from ram_ebpf.dataplane import namespaces
from ram_ebpf.dataplane.devices import Device
from ram_ebpf.policy.scope import LABEL_PREFIX
from ram_ebpf.scopes.cgroup import of_process
from ram_ebpf.scopes.device import Cable, cables, devices_inside, number_of
from ram_ebpf.scopes.target import Places, Target

# DOCKER_HOST names another one, as for Docker's own command line.
DEFAULT_URL = os.environ.get("DOCKER_HOST") or "unix:///run/docker.sock"
_TIMEOUT = 5.0  # seconds for one answer
_RETRY = 1.0  # seconds between two attempts to reach a daemon
_NEW = 3.0  # seconds for which a container is new
_OFTEN, _SELDOM = 0.2, 3.0  # seconds between two looks
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunningContainer:
    """A container that runs. `pid`: its first process."""

    identifier: str
    name: str
    labels: tuple[tuple[str, str], ...]
    pid: int
    image: str = ""


class DockerContainers:
    """The running containers of one daemon, kept up to date by a thread that ends with the process."""

    def __init__(self, url: str = DEFAULT_URL) -> None:
        self._url = url
        self._containers: tuple[RunningContainer, ...] = ()
        self._bridges: frozenset[str] = frozenset()
        self._pids: dict[str, int] = {}  # by identifier; the thread's own
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._watch, name="docker", daemon=True)
        self._listed = threading.Event()

    def start(self, patience: float = _TIMEOUT) -> None:
        """Begins to watch, and waits until the daemon was asked once."""
        self._thread.start()
        self._listed.wait(patience)

    @property
    def containers(self) -> tuple[RunningContainer, ...]:
        """Those that run now; none while the daemon is away."""
        return self._containers

    @property
    def bridges(self) -> frozenset[str]:
        """The names of the bridges of its networks."""
        return self._bridges

    def fileno(self) -> int:
        """Readable when there was a change; see has_news()."""
        return self._reader

    def has_news(self) -> bool:
        """Whether there was a change since the last call."""
        try:
            return bool(os.read(self._reader, 4096))
        except BlockingIOError:
            return False

    def _watch(self) -> None:
        while True:
            try:
                client = docker.DockerClient(base_url=self._url, version="auto", timeout=_TIMEOUT)
                with contextlib.closing(client):
                    self._follow(client)
            except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
                _log.debug("docker: %s", error)
            # A daemon that is away says nothing of its containers, which may live on (live-restore). What was
            # attached to them stays as long as their processes do.
            self._keep_living()
            self._listed.set()
            time.sleep(_RETRY)

    def _follow(self, client: Any) -> None:
        # Subscribed first and listed second: what happens in between is in the stream.
        self._pids.clear()  # who knows what has happened since
        events = client.events(decode=True, filters={"type": ["container", "network"]})
        with contextlib.closing(events):
            self._list_networks(client)
            self._list(client)
            for event in events:
                if event.get("Type") == "network":
                    if event.get("Action") in ("create", "destroy"):
                        self._list_networks(client)
                elif event.get("Action") in ("start", "die", "rename"):
                    if event["Action"] != "rename":
                        self._pids.pop(event.get("id") or event["Actor"]["ID"], None)
                    self._list(client)

    def _list(self, client: Any) -> None:
        """All at once, and by itself only what the list does not say: the process of one that is new.

        To be asked of one, a container waits until it has started, so nobody is asked twice.
        """
        found = []
        for item in client.api.containers():
            pid = self._pids.get(item["Id"]) or self._ask_for_pid(client, item["Id"])
            if pid:
                self._pids[item["Id"]] = pid
                labels = tuple(sorted((item.get("Labels") or {}).items()))
                name = next(iter(item.get("Names") or [""])).removeprefix("/")
                found.append(RunningContainer(item["Id"], name, labels, pid, item.get("Image") or ""))
        running = {container.identifier for container in found}
        self._pids = {identifier: pid for identifier, pid in self._pids.items() if identifier in running}
        self._change(tuple(found))
        self._listed.set()

    @staticmethod
    def _ask_for_pid(client: Any, identifier: str) -> int:
        try:
            return int(client.api.inspect_container(identifier)["State"]["Pid"])
        except docker.errors.NotFound:  # it has gone meanwhile
            return 0

    def _list_networks(self, client: Any) -> None:
        found = set()
        for network in client.networks.list(filters={"driver": "bridge"}):
            options = network.attrs.get("Options") or {}
            # moby: libnetwork/drivers/bridge, getBridgeName.
            found.add(options.get("com.docker.network.bridge.name") or f"br-{network.id[:12]}")
        self._bridges = frozenset(found)

    def _keep_living(self) -> None:
        self._change(tuple(item for item in self._containers if Path(f"/proc/{item.pid}").exists()))

    def _change(self, containers: tuple[RunningContainer, ...]) -> None:
        self._containers = containers
        with contextlib.suppress(BlockingIOError):
            os.write(self._writer, b"!")


class Networks:
    """By which numbers this namespace knows the network namespaces of containers.

    Such a number stays as long as the namespace, so each is asked for once.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}  # by process

    def number(self, pid: int) -> int | None:
        """None for this namespace itself, for one that no veth leads to yet, and for one that is gone."""
        if pid not in self._numbers:
            namespace = Path(f"/proc/{pid}/ns/net")
            with contextlib.suppress(OSError):
                if namespaces.identity(namespace) == namespaces.identity(namespaces.OWN):
                    return None
                number = number_of(namespace)
                if number is not None:
                    self._numbers[pid] = number
        return self._numbers.get(pid)

    def forget_all_but(self, pids: Collection[int]) -> None:
        """Processes that have ended, whose ids others may get."""
        self._numbers = {pid: number for pid, number in self._numbers.items() if pid in pids}


class DockerPorts:
    """The devices at the bridges of a Docker daemon's networks, by whether their container is known."""

    def __init__(self, containers: DockerContainers) -> None:
        self._containers = containers
        self._networks = Networks()
        self._cables: list[Cable] = []
        self._known: set[int | None] = set()

    def known(self) -> set[Device]:
        """Those that lead to containers which run. Looks anew."""
        pids = {container.pid for container in self._containers.containers}
        self._networks.forget_all_but(pids)
        self._known = {self._networks.number(pid) for pid in pids} - {None}
        bridges = self._containers.bridges
        self._cables = [cable for cable in cables() if cable.bridge in bridges]
        return {cable.device for cable in self._cables if cable.number in self._known}

    def others(self) -> set[Device]:
        """The rest of them, as known() saw them."""
        return {cable.device for cable in self._cables if cable.number not in self._known}


def matches(container: RunningContainer, wanted: str) -> bool:
    """Whether a container is meant: by its name, by the beginning of its id (12 digits or more), by a label.

    `label=KEY` or `label=KEY=VALUE`, as for `docker ps --filter`.
    """
    if wanted.startswith(LABEL_PREFIX):
        key, equals, value = wanted.removeprefix(LABEL_PREFIX).partition("=")
        return any(k == key and (not equals or v == value) for k, v in container.labels)
    return container.name == wanted or (len(wanted) >= 12 and container.identifier.startswith(wanted))


class ContainersTarget(Target):
    """All running containers of some kind: their cgroups, and what leads out of their networks."""

    def __init__(
        self,
        label: str,
        containers: DockerContainers,
        mount: Path,
        is_meant: Callable[[RunningContainer], bool],
    ) -> None:
        self.label = label
        self._containers = containers
        self._mount = mount
        self._is_meant = is_meant
        self._networks = Networks()
        self._since: dict[int, float] = {}  # when each process was seen first
        self._inside: dict[int, frozenset[Device]] = {}  # what is governed in there, by process

    @property
    def period(self) -> float:  # type: ignore[override]
        """Often while a container is new: what it runs and how it is connected may not be seen at once."""
        newest = max(self._since.values(), default=0.0)
        return _OFTEN if time.monotonic() - newest < _NEW else _SELDOM

    def find(self) -> Places:
        """Of a container in the host's own network only the cgroup."""
        containers = self._containers.containers
        self._forget_all_but({container.pid for container in containers})
        meant = [container for container in containers if self._is_meant(container)]
        cgroups = {of_process(container.pid, self._mount) for container in meant} - {None, self._mount}
        there = cables() if meant else []
        devices: set[Device] = set()
        for container in meant:
            number = self._networks.number(container.pid)
            leading = [cable for cable in there if number is not None and cable.number == number]
            devices.update(cable.device for cable in leading)
            devices |= self._others_of(container.pid, {cable.end for cable in leading})
        return Places(frozenset(cgroup for cgroup in cgroups if cgroup), frozenset(devices))

    def _others_of(self, pid: int, ends: set[int]) -> frozenset[Device]:
        """Devices that are governed inside, such as a macvlan. Entering a namespace takes long."""
        if time.monotonic() - self._since[pid] < _NEW or pid not in self._inside:
            self._inside[pid] = frozenset()
            namespace = Path(f"/proc/{pid}/ns/net")
            with contextlib.suppress(OSError):
                if namespaces.identity(namespace) != namespaces.identity(namespaces.OWN):
                    self._inside[pid] = devices_inside(namespace, ends)
        return self._inside[pid]

    def _forget_all_but(self, pids: set[int]) -> None:
        now = time.monotonic()
        self._since = {pid: self._since.get(pid, now) for pid in pids}
        self._inside = {pid: devices for pid, devices in self._inside.items() if pid in pids}
        self._networks.forget_all_but(pids)

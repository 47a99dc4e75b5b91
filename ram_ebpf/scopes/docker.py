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
from collections.abc import Set
from typing import Any

import docker
import requests

from ram_ebpf.dataplane.devices import Device
from ram_ebpf.policy.choices import LABEL_PREFIX
from ram_ebpf.scopes.containers import Networks, RunningContainer, living
from ram_ebpf.scopes.device import Links
from ram_ebpf.scopes.news import News

# DOCKER_HOST names another one, as for Docker's own command line.
DEFAULT_URL = os.environ.get("DOCKER_HOST") or "unix:///run/docker.sock"
_TIMEOUT = 5.0  # seconds for one answer
_RETRY = 1.0  # seconds between two attempts to reach a daemon
# podman: pkg/api/handlers/compat/version.go; its own API has been of this form since 4.0.
_PODMAN = "Podman Engine"
_PODMAN_NETWORKS = "/v4.0.0/libpod/networks/json"
_log = logging.getLogger(__name__)


class DockerContainers(News):
    """The running containers of one daemon, kept up to date by a thread that ends with the process."""

    def __init__(self, url: str = DEFAULT_URL) -> None:
        super().__init__()
        self._url = url
        self._containers: tuple[RunningContainer, ...] = ()
        self._bridges: frozenset[str] = frozenset()
        self.networks = Networks()
        self._pids: dict[str, int] = {}  # by identifier; the thread's own
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
            self._change(living(self._containers))
            self._listed.set()
            time.sleep(_RETRY)

    def _follow(self, client: Any) -> None:
        # Subscribed first and listed second: what happens in between is in the stream.
        self._pids.clear()  # who knows what has happened since
        podman = is_podman(client)
        events = client.events(decode=True, filters={"type": ["container", "network"]})
        with contextlib.closing(events):
            self._bridges = bridge_names(client, podman)
            self._list(client)
            for event in events:
                if _is_of_networks(event, podman):
                    self._bridges = bridge_names(client, podman)
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

    def _change(self, containers: tuple[RunningContainer, ...]) -> None:
        self._containers = containers
        self.tell()


def is_podman(client: Any) -> bool:
    """Whether podman's compatible service answers. Raises as docker.DockerClient does."""
    return any(part.get("Name") == _PODMAN for part in client.version().get("Components") or ())


def bridge_names(client: Any, podman: bool) -> frozenset[str]:
    """The devices that bridges of a daemon's networks are, or will be with their first container.

    `podman`: it is that. Raises as docker.DockerClient does, requests.RequestException and ValueError.
    """
    named = _podman_interfaces(client) if podman else {}
    found = set()
    for network in client.networks.list(filters={"driver": "bridge"}):
        options = network.attrs.get("Options") or {}
        # moby: libnetwork/drivers/bridge, getBridgeName.
        usual = options.get("com.docker.network.bridge.name") or f"br-{network.id[:12]}"
        found.add(named.get(network.id) or usual)
    return frozenset(found)


def _podman_interfaces(client: Any) -> dict[str, str]:
    """By the identifiers of networks. Docker's API has no place for them where podman speaks it."""
    answer = client.api.get(f"{client.api.base_url}{_PODMAN_NETWORKS}", timeout=_TIMEOUT)
    if not answer.ok:  # podman 3
        return {}
    return {item.get("id", ""): item.get("network_interface", "") for item in answer.json()}


def _is_of_networks(event: dict[str, Any], podman: bool) -> bool:
    """Whether the networks may be others since then.

    podman 4 tells of none, so a new container stands for a new one; podman 5 tells of `remove`.
    """
    if event.get("Type") == "network":
        return event.get("Action") in ("create", "destroy", "remove")
    return podman and event.get("Action") == "create"


class DockerPorts:
    """The bridges of a Docker daemon's networks, and the devices at them.

    `known`: those that lead to containers which run, `others`: the rest, when look() was called last.
    """

    def __init__(self, containers: DockerContainers) -> None:
        self._containers = containers
        self.bridges: Set[Device] = frozenset()
        self.known: Set[Device] = frozenset()
        self.others: Set[Device] = frozenset()

    def look(self) -> None:
        """Looks at all of them anew. Raises OSError, and has changed nothing then."""
        numbers = {self._containers.networks.number(item.pid) for item in self._containers.containers}
        names = self._containers.bridges
        links = Links.now()
        self.bridges = frozenset(device for device in links.bridges if device.name in names)
        ports = [cable for cable in links.cables if cable.bridge in names]
        known = numbers - {None}
        self.known = frozenset(cable.device for cable in ports if cable.number in known)
        self.others = frozenset(cable.device for cable in ports if cable.number not in known)


def matches(container: RunningContainer, wanted: str) -> bool:
    """Whether a container is meant: by its name, by the beginning of its id (12 digits or more), by a label.

    `label=KEY` or `label=KEY=VALUE`, as for `docker ps --filter`.
    """
    if wanted.startswith(LABEL_PREFIX):
        key, equals, value = wanted.removeprefix(LABEL_PREFIX).partition("=")
        return any(k == key and (not equals or v == value) for k, v in container.labels)
    return container.name == wanted or (len(wanted) >= 12 and container.identifier.startswith(wanted))

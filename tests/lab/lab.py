"""The lab: five namespaces on a bridge, a client, a resolver and two registries.

    with Lab() as lab:
        lab.client.pull("allowed.registry.test/lab/hello:1").check()

All traffic stays within the lab's own namespaces, and nothing of it outlives the `with` block.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from . import bpffs, certificates, cgroups, cleanup, image, namespaces, network, owner, topology
from .client import Client
from .dns import Dns
from .node import Node
from .programs import find
from .registry import Registry

REPOSITORY = "lab/hello"
TAG = "1"

_PROGRAMS = ("dnsmasq", "docker-registry", "skopeo", "setpriv", "nsenter", "unshare", "mount", "sh")


class Lab:
    """Builds the lab on entry and removes it on exit; its parts are there in between."""

    client: Client
    dns: Dns
    allowed: Registry
    blocked: Registry
    ca: Path
    directory: Path
    label: str
    build_seconds: float

    resolver = topology.RESOLVER
    resolver_v6 = topology.RESOLVER_V6
    rogue_resolver = topology.ROGUE_RESOLVER
    rogue_resolver_v6 = topology.ROGUE_RESOLVER_V6

    def __init__(self, registry_ports: Sequence[int] = (443,)) -> None:
        self._registry_ports = tuple(registry_ports)

    def __enter__(self) -> Lab:
        started = time.perf_counter()
        if os.geteuid() != 0:
            raise PermissionError("the lab makes network namespaces and control groups, which takes root")
        for program in _PROGRAMS:
            find(program)
        cleanup.remove_stale()
        self.label, self.directory = owner.claim()
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        self.build_seconds = time.perf_counter() - started
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def client_cgroup(self) -> Path:
        """The directory of the control group in which the client's commands run."""
        return self.client.cgroup

    @property
    def image_name(self) -> str:
        """The path and tag of the image that both registries hold."""
        return f"{REPOSITORY}:{TAG}"

    @property
    def server_pids(self) -> list[int]:
        """The processes of the resolver and the registries."""
        nodes = (self.dns.node, self.allowed.node, self.blocked.node)
        return [child.pid for node in nodes for child in node.children]

    def new_cgroup(self, name: str) -> Path:
        """Make a further control group, beside the client's; it goes away with the lab."""
        return cgroups.create(self.label, name)

    def close(self) -> None:
        """Remove the lab."""
        # On a failed build only the first nodes are there.
        for node in self._nodes:
            node.close()
        cleanup.remove(self.label)

    def _build(self) -> None:
        self._nodes: list[Node] = []
        client_cgroup = cgroups.create(self.label, "client")
        services = cgroups.create(self.label, "services")
        files = certificates.create(self.directory / "tls")
        self.ca = files.authority
        switch = namespaces.create(self.label, "switch")
        members = {role: namespaces.create(self.label, role.name) for role in topology.ROLES}
        network.connect(switch, members)

        def node(role: topology.Role) -> Node:
            result = Node(role, members[role], services, self.directory / role.name, self.ca)
            self._nodes.append(result)
            return result

        hello = image.hello()
        self.allowed = Registry(node(topology.ALLOWED_ROLE), files, self._registry_ports)
        self.blocked = Registry(node(topology.BLOCKED_ROLE), files, self._registry_ports)
        self.dns = Dns(node(topology.DNS_ROLE))
        role = topology.CLIENT_ROLE
        self.client = Client(
            role, members[role], services, self.directory / role.name, self.ca, client_cgroup
        )
        self.client.env[bpffs.VARIABLE] = str(bpffs.mount(self.directory))
        self.client.env["RAM_EBPF_RUN"] = str(self.directory / "run")
        self.client.env["RAM_EBPF_STATE"] = str(self.directory / "state")
        self._nodes.append(self.client)
        # All servers start side by side, and only then is any of them waited for.
        for registry in (self.allowed, self.blocked):
            registry.add_image(REPOSITORY, TAG, hello)
            registry.start()
        self.dns.start()
        for server in (self.allowed, self.blocked, self.dns):
            server.wait()

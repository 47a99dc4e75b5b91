"""A dockerd of the lab that asks ram-ebpf before it does anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from .docker import Docker
from .docker_daemon import HostDaemon, governed
from .lab import Lab

PLUGIN = "ram-ebpf"
SETTINGS: Mapping[str, object] = {"authorization-plugins": [PLUGIN]}
ALLOWED, BLOCKED, PULL_ONLY = "allowed.registry.test", "blocked.registry.test", "cdn.allowed.registry.test"
POLICY = f"""\
version: 1
organization: acme
message: Ask platform@acme.example to allow it.
registries:
  - host: {ALLOWED}
    private: true
  - host: {PULL_ONLY}
    private: true
    actions: [pull]
refusals:
  responder: off
resolvers: [{Lab.resolver}]
docker: {{ authorization: true }}
"""
DENIED = f"authorization denied by plugin {PLUGIN}: "


def refusal(registry: str, rule: str = "none", doing: str = "Access to") -> str:
    """What a user is told, behind what the engine says before it."""
    where = f"{doing} {registry} is blocked by acme's registry policy (rule: {rule})."
    return f"{DENIED}{where} Ask platform@acme.example to allow it."


@contextlib.contextmanager
def authorized(lab: Lab, directory: Path, policy: str = POLICY) -> Iterator[tuple[Docker, HostDaemon]]:
    """dockerd with an image that is allowed and one that is not, and ram-ebpf on its control group."""
    with Docker(lab, directory, directory.name) as docker:
        for registry in (ALLOWED, BLOCKED):
            docker.pull(f"{registry}/{lab.image_name}").check()
        with governed(lab, docker, policy, docker.cgroup) as daemon:
            docker.reload(SETTINGS)
            yield docker, daemon
            docker.reload({})

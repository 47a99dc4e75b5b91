"""The clients of docs/refusals.md: what each is told to do with an image of a registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.lab.processes import Finished

from . import builds
from .bench import Bench
from .names import reference


@dataclass(frozen=True)
class Client:
    """`package`: whose version it has. `act`: on a registry's host, to the end."""

    name: str
    package: str
    act: Callable[[Bench, str], Finished]


def _docker(*words: str) -> Callable[[Bench, str], Finished]:
    def act(bench: Bench, host: str) -> Finished:
        return bench.docker.run(*words, host if words[0] == "login" else reference(host))

    return act


def _build(buildkit: bool) -> Callable[[Bench, str], Finished]:
    def act(bench: Bench, host: str) -> Finished:
        context = builds.PLAIN.context(bench.machine, host, bench.base)
        env = {"DOCKER_BUILDKIT": str(int(buildkit))}
        return bench.docker.run("build", "--no-cache", context, env=env)

    return act


def _buildx(bench: Bench, host: str) -> Finished:
    return bench.builder.build(builds.PLAIN.context(bench.machine, host, bench.base))


def _command(*words: str, prefix: str = "") -> Callable[[Bench, str], Finished]:
    return lambda bench, host: bench.run(*words, prefix + reference(host))


DOCKER = (
    Client("docker pull", "docker.io", _docker("pull")),
    Client("docker login", "docker.io", _docker("login", "--username=me", "--password=secret")),
    Client("docker build, classic builder", "docker.io", _build(buildkit=False)),
    Client("docker build, BuildKit", "docker.io", _build(buildkit=True)),
)
CLIENTS = (
    *DOCKER,
    Client("docker buildx build", "docker.io", _buildx),
    Client("podman pull", "podman", _command("podman", "pull")),
    Client("buildah pull", "buildah", _command("buildah", "pull")),
    Client("skopeo inspect", "skopeo", _command("skopeo", "inspect", prefix="docker://")),
    Client("ctr images pull", "containerd", _command("ctr", "images", "pull")),
)

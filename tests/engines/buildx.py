"""A builder of `docker buildx` in a container, with a real buildkitd in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import buildkit, trees
from .dockerd import Dockerd

_IMAGE = "lab/buildkit:1"
_PLUGIN = "usr/libexec/docker/cli-plugins/docker-buildx"


class Builder:
    """One, by its name."""

    def __init__(self, docker: Dockerd, name: str) -> None:
        self.docker = docker
        self.name = name

    @property
    def container(self) -> str:
        """The identifier of its container."""
        return (
            self.docker.run("inspect", "--format={{.Id}}", f"buildx_buildkit_{self.name}0")
            .check()
            .stdout.strip()
        )

    def build(self, *words: str) -> Finished:
        """Run `docker buildx build`."""
        return self.docker.run(
            "buildx",
            "build",
            f"--builder={self.name}",
            "--progress=plain",
            "--no-cache",
            "--provenance=false",
            *words,
        )


def prepare(lab: Lab, docker: Dockerd, trusted: Path | None = None) -> None:
    """Give dockerd the image, and the docker command the plugin, where its suite has none.

    `trusted`: the certificates of whom it trusts, in the place of the lab's authority alone.
    """
    files = docker.machine.write("buildkit.tar", buildkit.image(trusted or lab.ca))
    change = 'ENTRYPOINT ["/usr/bin/buildkitd"]'
    docker.run("import", f"--change={change}", str(files), _IMAGE).check()
    files.unlink()
    if not (trees.tree(docker.machine.suite) / _PLUGIN).exists():
        plugin = docker.machine.write("docker-buildx", (trees.tree(buildkit.SUITE) / _PLUGIN).read_bytes())
        plugin.chmod(0o755)
        docker.machine.run(["mkdir", "-p", "/root/.docker/cli-plugins"]).check()
        docker.machine.run(["ln", "-sf", str(plugin), "/root/.docker/cli-plugins/docker-buildx"]).check()


@contextlib.contextmanager
def builder(docker: Dockerd, name: str) -> Iterator[Builder]:
    """A builder that runs."""
    docker.run(
        *("buildx", "create", f"--name={name}", "--driver=docker-container", f"--driver-opt=image={_IMAGE}"),
        *("--buildkitd-flags=--allow-insecure-entitlement=network.host", "--bootstrap"),
    ).check()
    try:
        yield Builder(docker, name)
    finally:
        docker.run("buildx", "rm", "--force", name).check()

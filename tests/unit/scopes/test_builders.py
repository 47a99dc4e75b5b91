"""Which containers build images."""

from __future__ import annotations

from pathlib import Path

import pytest

from ram_ebpf.scopes.builders import is_builder
from ram_ebpf.scopes.containers import RunningContainer

CGROUP = "/docker/buildx/0123"


class Host:
    """A /proc and a cgroup hierarchy."""

    def __init__(self, directory: Path) -> None:
        self.proc, self.mount = directory / "proc", directory / "cgroup"
        self.proc.mkdir()

    def run(self, pid: int, comm: str, program: str, cgroup: str = CGROUP) -> None:
        """A process."""
        folder = self.proc / str(pid)
        folder.mkdir()
        (folder / "comm").write_text(f"{comm}\n")
        (folder / "exe").symlink_to(program)
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        members = self.mount / cgroup.lstrip("/") / "cgroup.procs"
        members.parent.mkdir(parents=True, exist_ok=True)
        members.write_text((members.read_text() if members.exists() else "") + f"{pid}\n")

    def builds(
        self, name: str = "web", image: str = "nginx", pid: int = 42, labels: tuple[tuple[str, str], ...] = ()
    ) -> bool:
        """Whether a container with this first process is a builder."""
        container = RunningContainer("0123456789ab", name, labels, pid, image)
        return is_builder(container, self.mount, self.proc)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_any_container(host: Host) -> None:
    host.run(42, "nginx", "/usr/sbin/nginx")
    assert not host.builds()


def test_name_of_buildx(host: Host) -> None:
    host.run(42, "sh", "/bin/sh")
    assert host.builds(name="buildx_buildkit_default0")
    assert not host.builds(name="my_buildx_buildkit_0")


def test_name_in_a_pod(host: Host) -> None:
    host.run(42, "sh", "/bin/sh")
    assert host.builds(name="buildkitd")
    assert host.builds(name="k8s_x", labels=(("io.kubernetes.container.name", "buildkitd"),))
    assert not host.builds(name="buildkitd-proxy", labels=(("app", "buildkitd"),))


@pytest.mark.parametrize(
    ("image", "builds"),
    [
        ("moby/buildkit", True),
        ("moby/buildkit:buildx-stable-1", True),
        ("docker.io/moby/buildkit:v0.13.0-rootless", True),
        ("moby/buildkit@sha256:0123", True),
        ("moby/buildkitten", False),
        ("evil.example/moby/buildkit", False),
    ],
)
def test_image(host: Host, image: str, builds: bool) -> None:
    host.run(42, "sh", "/bin/sh")
    assert host.builds(image=image) is builds


def test_what_runs_in_a_renamed_one(host: Host) -> None:
    host.run(42, "buildkitd", "/usr/bin/buildkitd")
    assert host.builds(name="harmless", image="corp/tools")


def test_behind_an_init(host: Host) -> None:
    """As with `docker run --init`, or a shell in front; its own cgroups may be nested."""
    host.run(42, "tini", "/sbin/tini")
    assert not host.builds()
    host.run(43, "buildkitd", "/usr/bin/buildkitd", f"{CGROUP}/init")
    assert host.builds()


def test_beside_a_first_process_that_has_moved(host: Host) -> None:
    """The container is what has its identifier in its name."""
    host.run(42, "tini", "/sbin/tini", "/docker/0123456789abcdef/init")
    host.run(43, "buildkitd", "/usr/bin/buildkitd", "/docker/0123456789abcdef/main")
    assert host.builds()


def test_process_that_calls_itself_otherwise(host: Host) -> None:
    host.run(42, "harmless", "/usr/bin/buildkitd")
    assert host.builds()


def test_buildkitd_of_another_container(host: Host) -> None:
    host.run(42, "nginx", "/usr/sbin/nginx")
    host.run(50, "buildkitd", "/usr/bin/buildkitd", "/docker/another")
    assert not host.builds()


def test_container_that_has_ended(host: Host) -> None:
    assert not host.builds(pid=4711)

"""What engines run, by the directories that they make, and the watch that tells of new ones."""

from __future__ import annotations

import select
from pathlib import Path

import pytest

from ram_ebpf.policy.scope import Engine
from ram_ebpf.scopes.cgroup_watch import CgroupWatch
from ram_ebpf.scopes.runs import WATCHED, RunsTarget


@pytest.mark.parametrize(
    ("engine", "path"),
    [
        (Engine.DOCKER, "docker"),
        (Engine.DOCKER, "system.slice/docker-0123.scope"),
        (Engine.DOCKER, "a.slice/a-b.slice/docker-0123.scope"),
        (Engine.DOCKER, "system.slice:docker:w1x2"),
        (Engine.DOCKER, "a-b.slice:docker:w1x2"),
        (Engine.DOCKER, "system.slice/system.slice:docker:w1x2"),
        (Engine.DOCKER, "system.slice/a-b.slice:docker:w1x2"),
        (Engine.DOCKER, "a.slice/a-b.slice/system.slice:docker:w1x2"),
        (Engine.DOCKER, "a.slice/buildkit"),
        (Engine.PODMAN, "libpod_parent"),
        (Engine.PODMAN, "buildah-buildah0123"),
        (Engine.PODMAN, "system.slice/buildah-buildah0123"),
        (Engine.PODMAN, "user.slice/user-0.slice/buildah-buildah0123"),
        (Engine.PODMAN, "system.slice/runc-buildah-buildah0123.scope"),
        (Engine.PODMAN, "system.slice/crun-buildah-buildah0123.scope"),
        (Engine.PODMAN, "machine.slice/libpod-0123.scope"),
        (Engine.CONTAINERD, "k8s.io"),
        (Engine.CONTAINERD, "kubepods.slice"),
        (Engine.CRIO, "machine.slice/crio-0123.scope"),
        (Engine.PODMAN, "ci.slice/libpod-0123.scope"),
    ],
)
def test_places(tmp_path: Path, engine: Engine, path: str) -> None:
    targets = {kind: RunsTarget(kind, tmp_path) for kind in Engine}
    assert not any(target.find() for target in targets.values())
    (tmp_path / path).mkdir(parents=True)
    assert targets[engine].find().cgroups == targets[Engine.ALL].find().cgroups == {tmp_path / path}


@pytest.mark.parametrize(
    "path",
    [
        "docker.service",
        "system.slice/docker.service",
        "x/docker",
        "dockers",
        "system.slice/runc-0123.scope",
        "user.slice/user-1000.slice/session-1.scope/buildah-0123",
    ],
)
def test_what_is_not_run_by_an_engine(tmp_path: Path, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)
    assert not RunsTarget(Engine.ALL, tmp_path).find()


def test_what_is_in_one_of_them_is_governed_with_it(tmp_path: Path) -> None:
    (tmp_path / "kubepods.slice/kubepods-pod1.slice/crio-0123.scope").mkdir(parents=True)
    assert RunsTarget(Engine.CRIO, tmp_path).find().cgroups == {tmp_path / "kubepods.slice"}


def test_label() -> None:
    assert RunsTarget(Engine.DOCKER, Path("/")).label == "what engine docker runs"


def test_watch(tmp_path: Path) -> None:
    watch = CgroupWatch(tmp_path / name for name in WATCHED)
    assert not watch.has_news()
    for path in ("docker", "system.slice", "system.slice/docker-1.scope"):
        (tmp_path / path).mkdir()
        assert select.select([watch.fileno()], [], [], 5)[0]
        assert watch.has_news()
        assert not watch.has_news()
    (tmp_path / "docker").rmdir()
    assert watch.has_news()


def test_watch_of_what_is_not_there(tmp_path: Path) -> None:
    assert not CgroupWatch([tmp_path / "nothing"]).has_news()

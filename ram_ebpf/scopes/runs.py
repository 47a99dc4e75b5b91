"""What container engines run: the cgroups that they make for containers and build steps, beside their own.

Engines with the cgroupfs driver put all of that below one directory, which is governed as a whole, so a
container is from its first packet on. With systemd's driver each container has a unit of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ram_ebpf.policy.choices import Engine
from ram_ebpf.scopes.target import Places, Target

# A slice has its parts in each other: a-b.slice is in a.slice. Looked into are those of one part and of two.
_SLICES = ("*.slice", "*.slice/*.slice")


def _in_slices(*names: str) -> tuple[str, ...]:
    return tuple(f"{parent}/{name}" for parent in _SLICES for name in names)


# Below the root of the hierarchy. moby: daemon/oci_linux.go (/docker), with BuildKit's /docker/buildkit and
# buildx's /docker/buildx in it; podman: libpod/oci_conmon_linux.go; containerd: cmd/ctr (/default), cri and
# kubelet (kubepods); cri-o: internal/config/cgmgr.
# With systemd's driver moby calls BuildKit's steps PARENT.slice:docker:ID (cmd/dockerd, newCgroupParent). Its
# runc, without --systemd-cgroup, takes that for a directory beside the one that dockerd is in (libcontainer:
# fs2/defaultpath.go). A parent that a build itself names is another one (buildkit: executor/oci/spec.go).
# Likewise steps of root's podman and buildah, buildah-NAME; systemd puts them into a scope unit of runc's or
# crun's instead.
_PATTERNS: dict[Engine, tuple[str, ...]] = {
    Engine.DOCKER: (
        "docker",
        "*.slice:docker:*",
        *_in_slices("docker-*.scope", "*.slice:docker:*", "buildkit"),
    ),
    Engine.PODMAN: (
        "libpod_parent",
        "machine.slice/libpod-*.scope",
        "buildah-*",
        *_in_slices("buildah-*"),
        "system.slice/runc-buildah-*.scope",
        "system.slice/crun-buildah-*.scope",
    ),
    Engine.CONTAINERD: ("default", "k8s.io", "kubepods", "kubepods.slice"),
    Engine.CRIO: ("kubepods", "kubepods.slice", "machine.slice/crio-*.scope"),
}
WATCHED = (".", "system.slice", "machine.slice")
"""Where most of those directories appear. What appears elsewhere is found at the next look."""


class RunsTarget(Target):
    """What the engines of one kind run, or those of all kinds."""

    period = 0.5
    kind = "runs"

    def __init__(self, engine: Engine, mount: Path) -> None:
        self.label = f"what engine {engine.value} runs"
        self._patterns = sorted(
            {
                pattern
                for kind, patterns in _PATTERNS.items()
                if engine in (Engine.ALL, kind)
                for pattern in patterns
            }
        )
        self._mount = mount

    def find(self) -> Places:
        """The directories that are there now."""
        return Places(cgroups=frozenset(self._find()))

    def _find(self) -> Iterator[Path]:
        for pattern in self._patterns:
            if "*" in pattern:
                yield from (path for path in self._mount.glob(pattern) if path.is_dir())
            elif (self._mount / pattern).is_dir():
                yield self._mount / pattern

"""What container engines run: the cgroups that they make for containers and build steps, beside their own.

Engines with the cgroupfs driver put all of that below one directory, which is governed as a whole, so a
container is from its first packet on. With systemd's driver each container has a unit of its own.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ram_ebpf.policy.choices import Engine
from ram_ebpf.scopes.target import Places, Target

# In the root of the hierarchy. moby: daemon/oci_linux.go (/docker), with BuildKit's /docker/buildkit and
# buildx's /docker/buildx in it; podman: libpod/oci_conmon_linux.go; containerd: cmd/ctr (/default), cri and
# kubelet (kubepods); cri-o: internal/config/cgmgr.
_IN_ROOT: dict[Engine, tuple[str, ...]] = {
    Engine.DOCKER: ("docker", "*.slice:docker:*"),
    Engine.PODMAN: ("libpod_parent", "buildah-*"),
    Engine.CONTAINERD: ("default", "k8s.io", "kubepods", "kubepods.slice"),
    Engine.CRIO: ("kubepods", "kubepods.slice"),
}
# In slices: what systemd's driver makes.
# moby calls BuildKit's steps PARENT.slice:docker:ID (cmd/dockerd, newCgroupParent). Its runc, without
# --systemd-cgroup, takes that for a directory beside the one that dockerd is in (libcontainer:
# fs2/defaultpath.go). A parent that a build itself names is another one (buildkit: executor/oci/spec.go).
# Likewise steps of root's podman and buildah, buildah-NAME; systemd puts them into a scope unit of runc's or
# crun's instead.
_IN_SLICES: dict[Engine, tuple[str, ...]] = {
    Engine.DOCKER: ("docker-*.scope", "*.slice:docker:*", "buildkit"),
    Engine.PODMAN: ("libpod-*.scope", "buildah-*", "runc-buildah-*.scope", "crun-buildah-*.scope"),
    Engine.CONTAINERD: (),
    Engine.CRIO: ("crio-*.scope",),
}
_SLICE = ".slice"
_DEPTH = 2  # of slices in each other: ci-builds.slice is in ci.slice
WATCHED = (".", "system.slice", "machine.slice")
"""Where most of those directories appear. What appears elsewhere is found at the next look."""


class RunsTarget(Target):
    """What the engines of one kind run, or those of all kinds."""

    period = 0.5
    kind = "runs"

    def __init__(self, engine: Engine, mount: Path) -> None:
        self.label = f"what engine {engine.value} runs"
        self._in_root, self._in_slices = (_any_of(engine, names) for names in (_IN_ROOT, _IN_SLICES))
        self._mount = mount

    def find(self) -> Places:
        """The directories that are there now."""
        return Places(cgroups=frozenset(self._find()))

    def _find(self) -> Iterator[Path]:
        slices, wanted = [self._mount], self._in_root
        for _ in range(1 + _DEPTH):
            further = []
            for entry in _directories(slices):
                if wanted.fullmatch(entry.name):
                    yield Path(entry.path)
                elif entry.name.endswith(_SLICE):
                    further.append(Path(entry.path))
            slices, wanted = further, self._in_slices


def _any_of(engine: Engine, names: Mapping[Engine, tuple[str, ...]]) -> re.Pattern[str]:
    """Of an engine's names, or of all."""
    patterns = (name for kind, of_kind in names.items() if engine in (Engine.ALL, kind) for name in of_kind)
    return re.compile("|".join(map(fnmatch.translate, patterns)) or "(?!)")


def _directories(parents: Iterable[Path]) -> Iterator[os.DirEntry[str]]:
    for parent in parents:
        with contextlib.suppress(OSError), os.scandir(parent) as entries:  # it may be gone again
            yield from (entry for entry in entries if entry.is_dir())

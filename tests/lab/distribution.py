"""Distributions as WSL2 has them: roots of their own, in one network namespace and under one kernel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .lab import Lab
from .processes import Finished

# In a mount namespace of its own, as each program of the lab is.
_ENTER = """
mount --rbind / "$1" || exit 125
mount --bind "$2" "$1/etc/os-release" || exit 125
shift 2
root=$1
shift
exec chroot "$root" "$@"
"""


@dataclass(frozen=True)
class Distribution:
    """A root directory and a control group, in the client's network namespace."""

    lab: Lab
    name: str
    root: Path
    release: Path
    cgroup: Path

    def run(self, *argv: str, timeout: float = 60.0) -> Finished:
        """Runs a program inside."""
        words = ["sh", "-c", _ENTER, "sh", str(self.root), str(self.release), str(self.root), *argv]
        return self.lab.client.run(words, cgroup=self.cgroup, timeout=timeout)

    def pull(self, reference: str) -> Finished:
        """Pulls an image with skopeo."""
        target = f"dir:/tmp/pulled-{self.name}"
        return self.run("skopeo", "--insecure-policy", "copy", "--quiet", f"docker://{reference}", target)


def create(lab: Lab, name: str, parent: Path) -> Distribution:
    """Makes one whose control group is below `parent`."""
    directory = lab.client.directory / f"distribution-{name}"
    root = directory / "root"
    root.mkdir(parents=True)
    release = directory / "os-release"
    release.write_text(f"ID={name}\n", encoding="utf-8")
    cgroup = parent / name
    cgroup.mkdir()
    return Distribution(lab, name, root, release, cgroup)

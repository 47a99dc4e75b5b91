"""Who runs an engine that has no daemon: root, or somebody in a user namespace of their own (rootless)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.lab.processes import Finished

from .machine import USER, Machine

_RUNTIME = f"/run/user/{USER}"


@dataclass(frozen=True)
class User:
    """One of the two."""

    name: str
    rootless: bool

    def run(self, machine: Machine, cgroup: Path, *words: str) -> Finished:
        """Run a program in a control group of the machine."""
        if not self.rootless:
            return machine.run(words, cgroup=cgroup)
        machine.run(["install", "-d", f"--owner={USER}", "--mode=700", _RUNTIME, "/home/builder"]).check()
        become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--")
        env = {"HOME": "/home/builder", "USER": "builder", "XDG_RUNTIME_DIR": _RUNTIME}
        return machine.run([*become, "env", "--chdir=/home/builder", *words], cgroup=cgroup, env=env)


ROOT = User("root", rootless=False)
ROOTLESS = User("rootless", rootless=True)

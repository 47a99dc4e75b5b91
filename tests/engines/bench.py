"""All engines of one Debian suite on one machine, as docs/refusals.md compares them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.adversarial.field import eventually
from tests.lab.daemon import COMMAND
from tests.lab.lab import Lab
from tests.lab.processes import Finished

from . import buildx, containerd
from .buildx import Builder
from .dockerd import Dockerd
from .machine import Machine
from .names import Names, reference
from .trusting import make_authority, write_bundle
from .wire import Wire

_ROOT = Path(__file__).parents[2]
_STORE = "/etc/ssl/certs/ca-certificates.crt"  # as update-ca-certificates writes it
_PATIENCE = 60.0


class Bench:
    """For the time of a `with` block. Nothing is governed yet.

    `authority`: the directory of an organisation's authority that all engines have trusted since they were
    started. That says nothing as long as ram-ebpf does not sign by it. `commands`: the control group of
    engines without a daemon. `base`: an image that dockerd has.
    """

    docker: Dockerd
    builder: Builder
    wire: Wire
    authority: Path
    base: str

    def __init__(self, lab: Lab, names: Names, directory: Path, suite: str) -> None:
        self.lab = lab
        self.names = names
        self.suite = suite
        self.machine = Machine(lab, directory / "machine", suite, f"bench-{suite}")
        self.commands = self.machine.cgroup("commands")
        self._directory = directory

    def __enter__(self) -> Bench:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.machine)
            self.wire = stack.enter_context(contextlib.closing(Wire(self.machine.node.namespace)))
            self.authority = make_authority(self.lab, self._directory)
            bundle = write_bundle(self.lab, self.machine, self.authority)
            self.machine.run(["cp", bundle, _STORE]).check()
            self.docker = stack.enter_context(Dockerd(self.machine))
            stack.enter_context(containerd.started(self.machine))
            buildx.prepare(self.lab, self.docker, Path(bundle))
            self.builder = stack.enter_context(buildx.builder(self.docker, "lab"))
            self.base = self.names.allowed()
            self.docker.run("pull", reference(self.base)).check()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    @property
    def scopes(self) -> tuple[Path | str, ...]:
        """Of all that reaches for registries here."""
        return (self.docker.cgroup, self.commands, self.machine.cgroup("containerd"), "builders:buildx")

    def run(self, *words: str) -> Finished:
        """Run a command of an engine that has no daemon, or whose daemon does not reach for registries."""
        return self.machine.run(words, cgroup=self.commands)

    def wait_answered(self) -> None:
        """Until the responder listens in the builder's network too."""

        def is_answered() -> bool:
            return bool(self._status()["responder"]["namespaces"])

        if not eventually(is_answered, _PATIENCE):
            raise RuntimeError(f"the builder has no responder: {self._status()}")

    def _status(self) -> dict[str, Any]:
        done = self.lab.client.run([*COMMAND, "status", "--json"], cwd=_ROOT).check()
        (answer,) = json.loads(done.stdout)
        assert isinstance(answer, dict)
        return answer

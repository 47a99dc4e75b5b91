"""Docker's command line with `docker ram`, at a configuration of its own and on a terminal of its own."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ram_ebpf.cli.docker_hook import HOOKS
from ram_ebpf.cli.docker_plugin import PROGRAM

from .lab import Lab
from .node import Node
from .processes import Finished

_ROOT = Path(__file__).parents[2]
# What an installer makes of the entry point of pyproject.toml, for this tree and the lab's daemon.
_SCRIPT = """\
#!{python}
import os
import sys
sys.path.insert(0, {root!r})
os.environ["RAM_EBPF_RUN"] = {run!r}
from ram_ebpf.cli.docker_ram import main
sys.exit(main())
"""


class DockerCli:
    """The docker command `argv` at an engine's URL; `directory` is made, and keeps its configuration."""

    def __init__(
        self, lab: Lab, node: Node, directory: Path, argv: Sequence[str], env: Mapping[str, str]
    ) -> None:
        self._node, self.argv = node, tuple(argv)
        self.env = {**env, "DOCKER_CONFIG": str(directory)}
        program = directory / "cli-plugins" / PROGRAM
        program.parent.mkdir(parents=True)
        run = str(lab.directory / "run")
        text = _SCRIPT.format(python=sys.executable, root=str(_ROOT), run=run)
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
        settings = {"features": {"hooks": "true"}, "plugins": {"ram": {"hooks": HOOKS}}}
        (directory / "config.json").write_text(json.dumps(settings), encoding="utf-8")

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> Finished:
        """Run it to its end, with pipes."""
        return self._node.run([*self.argv, *words], env={**self.env, **(env or {})}, timeout=60)

    def on_terminal(self, *words: str, env: Mapping[str, str] | None = None) -> Finished:
        """Run it to its end as somebody does who sits before it; all that it says is in `stdout`."""
        started = time.perf_counter()
        ours, its = pty.openpty()
        try:
            process = self._node.popen(
                [*self.argv, *words],
                env={**self.env, "TERM": "xterm", **(env or {})},
                stdin=its,
                stdout=its,
                stderr=its,
            )
        finally:
            os.close(its)
        said = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                while part := terminal.read(65536):
                    said += part
            except OSError as error:
                if error.errno != errno.EIO:  # nobody holds the other end any more
                    raise
        code = _end(process)
        seconds = time.perf_counter() - started
        return Finished(tuple(words), code, said.decode(errors="replace").replace("\r\n", "\n"), "", seconds)


def _end(process: subprocess.Popen[str]) -> int:
    with process:
        return process.wait(60)

"""What is built: Dockerfiles, each in a directory of its own, and how it is built."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .machine import Machine
from .names import reference

_numbers = itertools.count()


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile, in which {host} stands for the registry in question and {open} for an allowed one."""

    text: str

    def context(self, machine: Machine, host: str, open_host: str) -> str:
        """Write it; returns its directory."""
        text = self.text.format(
            image=reference(host), open=reference(open_host), url=f"https://{host}/v2/lab/base/tags/list"
        )
        return str(machine.write(f"build-{next(_numbers)}/Dockerfile", text).parent)


PLAIN = Recipe("FROM {image}\nRUN echo built >/built\n")
ADD = Recipe("FROM {open}\nADD {url} /added\nRUN cat /added\n")
STAGES = Recipe("FROM {open} AS one\nFROM {image}\nCOPY --from=one /bin/busybox /bin/other\n")

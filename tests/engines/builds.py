"""What is built: Dockerfiles, each in a directory of its own, and how it is built."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from .machine import Machine
from .names import reference

_numbers = itertools.count()


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile. {host} is the registry in question, {image} its image, and {open} one that is allowed."""

    text: str

    def context(self, machine: Machine, host: str, open_host: str) -> str:
        """Write it; returns its directory."""
        url = f"https://{host}/v2/lab/base/tags/list"
        text = self.text.format(host=host, image=reference(host), open=reference(open_host), url=url)
        return str(machine.write(f"build-{next(_numbers)}/Dockerfile", text).parent)


PLAIN = Recipe("FROM {image}\nRUN echo built >/built\n")
ADD = Recipe("FROM {open}\nADD {url} /added\nRUN cat /added\n")
STAGES = Recipe("FROM {open} AS one\nFROM {image}\nCOPY --from=one /bin/busybox /bin/other\n")
CONNECT = Recipe("FROM {open}\nRUN busybox nc -w 5 {host} 443 </dev/null\n")

# What is built with every engine: the recipe, and options on the command line.
ALL: dict[str, tuple[Recipe, tuple[str, ...]]] = {
    "build": (PLAIN, ()),
    "build with ADD https": (ADD, ()),
    "build of two stages": (STAGES, ()),
    "build --network=host": (PLAIN, ("--network=host",)),
}

# podman 4.3 cannot keep the layers of steps on an image without a history, such as the lab's.
BY_COMMAND = ("build", "--no-cache", "--layers=false")

"""Writes the programs of an application, ram-ebpf and docker-ram, so that Python starts as fast as it can.

    python -I programs.py DIRECTORY FINAL

DIRECTORY: a virtual environment, whose interpreter runs this. FINAL: where it will be in the end.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_PROGRAMS = {"ram-ebpf": "ram_ebpf.cli.main", "docker-ram": "ram_ebpf.cli.docker_ram"}

# -I: neither the environment nor the working directory of who calls it says what is run. -S: nor do files
# that other packages leave for each start of Python (*.pth, sitecustomize), which also take their time.
_TEXT = """\
#!{python} -IS
import sys

sys.path += {places}

from {module} import main

sys.exit(main())
"""


def places(directory: Path, final: Path) -> list[str]:
    """Where packages are, which Python knows by itself only without -S."""
    command = [sys.executable, "-IS", "-c", "import sys; print(*sys.path, sep='\\n')"]
    bare = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = [Path(place) for place in sys.path if place not in bare]
    return [
        str(final / place.relative_to(directory)) if place.is_relative_to(directory) else str(place)
        for place in found
    ]


def main(directory: Path, final: Path) -> None:
    """Over those that pip has made."""
    for name, module in _PROGRAMS.items():
        text = _TEXT.format(python=final / "bin/python", places=places(directory, final), module=module)
        (directory / "bin" / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

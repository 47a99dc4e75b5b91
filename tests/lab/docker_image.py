"""The image of the lab's containers: a program that waits, and programs that resolve names and connect."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from . import image, programs

WAIT = ("/bin/sleep", "infinity")

_SOURCE = Path(__file__).parent / "clients" / "connect.c"
_LIBRARY = re.compile(r"(/\S+) \(0x[0-9a-f]+\)")  # in the output of ldd(1)


def build(directory: Path) -> image.Image:
    """Build it. /bin/musl and /bin/glibc are clients/connect.c with the resolvers of these C libraries."""
    # The second by the name of BuildKit's daemon, which is all that is looked at of one.
    found = dict.fromkeys(("bin/sleep", "bin/buildkitd"), Path(programs.find("sleep")))
    # Static, or it would need musl's loader.
    for name, compiler, options in (("musl", "musl-gcc", ["-static"]), ("glibc", "gcc", [])):
        target = found[f"bin/{name}"] = directory / name
        subprocess.run([programs.find(compiler), "-O", str(_SOURCE), "-o", str(target), *options], check=True)
    for name in ("sleep", "glibc"):
        said = subprocess.run(
            ["ldd", str(found[f"bin/{name}"])], capture_output=True, text=True, check=True
        ).stdout
        found |= {library.lstrip("/"): Path(library) for library in _LIBRARY.findall(said)}
    return image.build({name: path.read_bytes() for name, path in found.items()}, WAIT)

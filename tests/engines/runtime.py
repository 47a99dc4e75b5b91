"""A runtime for dockerd 20.10 on machines whose root lacks CAP_SYS_RESOURCE, as in many virtual machines.

That version gives a privileged container, which a builder is, all capabilities that it knows of; later ones
give what they have themselves. So this one stands before runc and leaves out what nobody has to give.
"""

from __future__ import annotations

from pathlib import Path

from .machine import Machine

NAME = "short-of-rights"
_CAP_SYS_RESOURCE = 24
_SCRIPT = """\
#!/bin/sh
before=
for word in "$@"; do
    case $before in
    --bundle) sed -i s/'"CAP_SYS_RESOURCE",'//g "$word/config.json" ;;
    --process) sed -i s/'"CAP_SYS_RESOURCE",'//g "$word" ;;
    esac
    before=$word
done
exec runc "$@"
"""


def options(machine: Machine) -> list[str]:
    """What dockerd is to be told."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    bounding = next(int(line.split()[1], 16) for line in status if line.startswith("CapBnd:"))
    if machine.suite != "bookworm" or bounding >> _CAP_SYS_RESOURCE & 1:
        return []
    script = machine.write("runtime", _SCRIPT)
    script.chmod(0o755)
    return [f"--add-runtime={NAME}={script}", f"--default-runtime={NAME}"]

"""systemd-resolved with its stub at 127.0.0.53, without systemd, D-Bus and a file of the machine's."""

from __future__ import annotations

from collections.abc import Mapping

from tests.lab.node import Node

from . import aside
from .server import Server

ADDRESS = "127.0.0.53"

# The user that it becomes is root by another name: a change of user would have the kernel forget the signal
# of the parent's death. All below /run is out of its sight, above all the machine's D-Bus, by which it would
# offer itself as the machine's resolver; so are its settings in /etc/systemd.
_SCRIPT = """\
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/group" /etc/group
if [ -d /etc/systemd ]; then mount -t tmpfs tmpfs /etc/systemd; fi
config=$(cat "$1/resolved.conf")
program=$2
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/resolved.conf.d
echo "$config" >/run/systemd/resolved.conf.d/lab.conf
exec "$program"
"""
_CONFIG = """\
[Resolve]
DNS={to}
FallbackDNS=
Domains=~.
LLMNR=no
MulticastDNS=no
DNSSEC=no
DNSOverTLS=no
DNSStubListener=yes
"""


class Resolved(Server):
    """It asks one other server for everything."""

    def __init__(self, node: Node, to: str) -> None:
        super().__init__(node, ADDRESS)
        self._to = to

    def prepare(self) -> tuple[list[str], Mapping[str, str]]:
        """See Server."""
        program = aside.find("systemd-resolved")
        files = {
            "passwd": "root:x:0:0::/:/bin/sh\nsystemd-resolve:x:0:0::/:/bin/sh\n",
            "group": "root:x:0:\nsystemd-resolve:x:0:\n",
            "resolved.conf": _CONFIG.format(to=self._to),
        }
        for name, text in files.items():
            (self.directory / name).write_text(text, encoding="utf-8")
        argv = ["sh", "-c", _SCRIPT, "resolved", str(self.directory), str(program.path)]
        return argv, {**program.env, "SYSTEMD_LOG_TARGET": "console", "SYSTEMD_LOG_LEVEL": "info"}

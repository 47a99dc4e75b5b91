"""unbound as a resolver that asks the owner of the zones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.lab.node import Node

from . import aside
from .server import Server

_CONFIG = """\
server:
    interface: {address}
    access-control: 0.0.0.0/0 allow
    directory: ""
    chroot: ""
    username: ""
    pidfile: ""
    use-syslog: no
    logfile: ""
    num-threads: 1
    module-config: "iterator"
    do-not-query-localhost: no
    rrset-roundrobin: yes
    max-udp-size: 4096
remote-control:
    control-enable: no
"""
# Without `nodefault` unbound itself knows that there are no names below .test (RFC 6761).
_ZONE = """\
server:
    local-zone: "{zone}" nodefault
stub-zone:
    name: "{zone}"
    stub-addr: {to}
"""


class Unbound(Server):
    """It has no zones of its own."""

    def __init__(self, node: Node, address: str, zones: Sequence[str], to: str) -> None:
        super().__init__(node, address)
        self._zones = zones
        self._to = to

    def prepare(self) -> tuple[list[str], Mapping[str, str]]:
        """See Server."""
        program = aside.find("unbound")
        config = [_CONFIG.format(address=self.address)]
        config += [_ZONE.format(zone=zone, to=self._to) for zone in ("test", *self._zones)]
        path = self.directory / "unbound.conf"
        path.write_text("".join(config), encoding="utf-8")
        return [str(program.path), "-d", "-c", str(path)], program.env

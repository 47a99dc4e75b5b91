"""BIND's named, as the owner of zones and as a resolver that asks their owner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.lab.node import Node

from . import aside
from .server import Server

# As root, which -u would change: the kernel forgets the signal of the parent's death on a change of user.
_OPTIONS = """\
options {{
    directory "{directory}";
    listen-on {{ {address}; }};
    listen-on-v6 {{ none; }};
    pid-file none;
    lock-file none;
    session-keyfile none;
    allow-query {{ any; }};
    recursion {recursion};
    dnssec-validation no;
    empty-zones-enable no;
    minimal-responses yes;
    rrset-order {{ order cyclic; }};
    max-udp-size 4096;
    max-records-per-type 0;
    max-cache-size 16M;
}};
controls {{ }};
"""


class Bind(Server):
    """With `zones` (name to text) it owns them; `forward` are zones for which it asks another server."""

    def __init__(
        self,
        node: Node,
        address: str,
        zones: Mapping[str, str] | None = None,
        forward: Sequence[str] = (),
        to: str = "",
    ) -> None:
        super().__init__(node, address)
        self._zones = zones or {}
        self._forward = forward
        self._to = to

    def prepare(self) -> tuple[list[str], Mapping[str, str]]:
        """See Server."""
        program = aside.find("named")
        recursion = "yes; allow-recursion { any; }" if self._forward else "no"
        config = [_OPTIONS.format(directory=self.directory, address=self.address, recursion=recursion)]
        for name, text in self._zones.items():
            (self.directory / name).write_text(text, encoding="utf-8")
            config.append(f'zone "{name}" {{ type primary; file "{name}"; }};')
        for name in self._forward:
            config.append(f'zone "{name}" {{ type forward; forward only; forwarders {{ {self._to}; }}; }};')
        path = self.directory / "named.conf"
        path.write_text("\n".join(config) + "\n", encoding="utf-8")
        return [str(program.path), "-g", "-n", "1", "-c", str(path)], program.env

    def is_ready(self, log: str) -> bool:
        """It answers before it has read its zones, but with errors."""
        if "not loaded due to errors" in log:
            raise RuntimeError(f"BIND does not take a zone: {log[-2000:]}")
        return "all zones loaded" in log

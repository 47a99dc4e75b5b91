"""dnsmasq as a caching forwarder, as home routers, libvirt and desktops have it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.lab.node import Node

from .server import Server


class LocalDnsmasq(Server):
    """It asks one other server for everything."""

    def __init__(self, node: Node, address: str, to: str) -> None:
        super().__init__(node, address)
        self._to = to

    def prepare(self) -> tuple[list[str], Mapping[str, str]]:
        """See Server."""
        lines = [
            "user=root",
            "group=root",
            "pid-file=",
            "no-resolv",
            "no-hosts",
            "bind-interfaces",
            f"listen-address={self.address}",
            f"server={self._to}",
            "cache-size=1000",
            "edns-packet-max=4096",
            "log-facility=-",
        ]
        path = self.directory / "dnsmasq.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return ["dnsmasq", "--keep-in-foreground", f"--conf-file={path}"], {}

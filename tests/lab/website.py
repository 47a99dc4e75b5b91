"""A web server of the lab that is no registry, and tells what it was asked."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from . import ports
from .node import Node

_SERVER = """\
import http.server, socket, ssl, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<html>hello</html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

server = Server(("::", int(sys.argv[1])), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2], sys.argv[3])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"""


class Website:
    """One server on all addresses of a node."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def requests(self) -> list[str]:
        """The request lines so far."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [line.split('"')[1] for line in lines if line.count('"') == 2]


@contextlib.contextmanager
def serving(node: Node, port: int) -> Iterator[Website]:
    """In clear text."""
    log = node.directory / f"website-{port}.log"
    with log.open("w", encoding="utf-8") as file:
        server = node.popen([sys.executable, "-c", _SERVER, str(port)], stdout=file, stderr=subprocess.STDOUT)
    try:
        ports.wait_open(server, node.namespace, port, ("tcp6",), log)
        yield Website(log)
    finally:
        node.stop(server)

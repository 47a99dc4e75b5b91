"""A DNS server that answers each query as a given Python function says, right or wrong, over UDP.

    python -m tests.lab.udp_dns --listen 10.77.0.54 --script answers.py --function answer

The function gets the parsed query (dns.message.Message) and the client's address, and returns the
datagrams to send: none, one, or several, each from whatever source (see dns_replies). Each line of JSON
on stdin sends a datagram that nobody has asked for: {"wire": HEX, "to": [ADDRESS, PORT], "source": …,
"source_port": …}. Each line of JSON on stdout is an event: ready, query, sent or error.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import selectors
import socket
import sys
import time
from collections.abc import Sequence

import dns.exception
import dns.message
import dns.rdatatype

from .dns_replies import Address, Answer, Reply

# From <linux/in.h> and <linux/in6.h>, as the socket module lacks them. They let root send from addresses
# that are not this host's.
_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75


class Server:
    """Answers the queries of one socket and obeys the commands of one pipe."""

    def __init__(self, listen: Address, answer: Answer, commands: int) -> None:
        self._listen = listen
        self._answer = answer
        self._commands = commands
        self._partial = b""
        self._family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        self._socket = socket.socket(self._family, socket.SOCK_DGRAM)
        self._socket.bind(listen)
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Run until killed."""
        self._selector.register(self._socket, selectors.EVENT_READ, self._on_query)
        self._selector.register(self._commands, selectors.EVENT_READ, self._on_command)
        _tell(event="ready", address=self._listen[0], port=self._listen[1])
        while True:
            for key, _ in self._selector.select():
                try:
                    key.data()
                except Exception as error:  # a wrong script is to be named, and the server to go on
                    _tell(event="error", error=repr(error))

    def _on_query(self) -> None:
        wire, peer = self._socket.recvfrom(65535)
        client: Address = (peer[0], peer[1])
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException as error:
            _tell(event="error", error=repr(error), wire=wire.hex())
            return
        question = query.question[0] if query.question else None
        # Compared to None below, as a question holds no records and is hence false.
        _tell(
            event="query",
            id=query.id,
            name=question.name.to_text(omit_final_dot=True) if question is not None else "",
            type=dns.rdatatype.to_text(question.rdtype) if question is not None else "",
            client=client,
            wire=wire.hex(),
        )
        for reply in self._answer(query, client):
            self._send(reply, reply.to or client)

    def _on_command(self) -> None:
        data = os.read(self._commands, 65536)
        if not data:
            self._selector.unregister(self._commands)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            address, port = command["to"]
            wire = bytes.fromhex(command["wire"])
            source, source_port = command.get("source"), command.get("source_port")
            self._send(Reply(wire, source, source_port), (address, port))

    def _send(self, reply: Reply, to: Address) -> None:
        time.sleep(reply.delay)
        source = (reply.source or self._listen[0], reply.source_port or self._listen[1])
        if source == self._listen:
            self._socket.sendto(reply.wire, to)
        else:
            with socket.socket(self._family, socket.SOCK_DGRAM) as other:
                if self._family == socket.AF_INET6:
                    other.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
                else:
                    other.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
                other.bind(source)
                other.sendto(reply.wire, to)
        _tell(event="sent", source=source, to=to, octets=len(reply.wire))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server from the command line."""
    parser = argparse.ArgumentParser(description="a DNS server whose answers a Python function makes")
    parser.add_argument("--listen", required=True, help="address to listen on")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--script", required=True, help="Python file that defines the function")
    parser.add_argument("--function", default="answer")
    options = parser.parse_args(argv)
    answer = runpy.run_path(options.script)[options.function]
    Server((options.listen, options.port), answer, sys.stdin.fileno()).serve()


def _tell(**event: object) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    main()

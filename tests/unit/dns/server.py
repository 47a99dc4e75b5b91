"""A DNS server on a high port of the loopback interface, over UDP and TCP, in a thread."""

from __future__ import annotations

import ipaddress
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from ram_ebpf.dataplane.trusted import TrustedResolver

LOCALHOST = ipaddress.ip_address("127.0.0.1")

Handler = Callable[[dns.message.Message, bool], "dns.message.Message | bytes | None"]
"""What to answer, told the query and whether it came over TCP; None: nothing, which closes TCP."""


def reply(
    query: dns.message.Message, *records: dns.rrset.RRset, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> dns.message.Message:
    """A reply with these records."""
    response = dns.message.make_response(query)
    response.answer.extend(records)
    response.set_rcode(rcode)
    return response


def truncated(query: dns.message.Message) -> dns.message.Message:
    """A reply that says that it is not whole."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response


def knows(*texts: tuple[str, int, str, str]) -> Handler:
    """Answers from records of (name, time to live, type, value); NXDOMAIN for other names."""

    def handle(query: dns.message.Message, over_tcp: bool) -> dns.message.Message:
        question = query.question[0]
        mine = [item for item in texts if dns.name.from_text(item[0]) == question.name]
        if not mine:
            return reply(query, rcode=dns.rcode.NXDOMAIN)
        kind = dns.rdatatype.to_text(question.rdtype)
        return reply(
            query,
            *(dns.rrset.from_text(name, ttl, "IN", rdtype, value) for name, ttl, rdtype, value in mine
              if rdtype in (kind, "CNAME")),
        )  # fmt: skip

    return handle


def fails(rcode: dns.rcode.Rcode) -> Handler:
    """Answers nothing but an error."""
    return lambda query, over_tcp: reply(query, rcode=rcode)


def free_port() -> int:
    """A port of UDP and TCP that nobody listens on."""
    udp, tcp = _bind()
    with udp, tcp:
        port = udp.getsockname()[1]
    assert isinstance(port, int)
    return port


def _bind() -> tuple[socket.socket, socket.socket]:
    for _ in range(50):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp.bind((str(LOCALHOST), 0))
        try:
            tcp.bind(udp.getsockname())
        except OSError:  # somebody has this port of TCP
            udp.close()
            tcp.close()
            continue
        return udp, tcp
    raise AssertionError("no port is free for both UDP and TCP")


class Server:
    """Use as a context manager. `asked` holds name, type and whether over TCP, in the order of arrival."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[tuple[str, str, bool]] = []
        self._udp, self._tcp = _bind()
        self._tcp.listen()
        self._end, self._wake = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="dns-server", daemon=True)
        self.resolver = TrustedResolver(LOCALHOST, self._udp.getsockname()[1], True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._wake.send(b"x")
        self._thread.join()
        for item in (self._udp, self._tcp, self._end, self._wake):
            item.close()

    def types(self) -> Sequence[str]:
        """The types asked for, in the order of arrival."""
        return [kind for _, kind, _ in self.asked]

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for item in (self._udp, self._tcp, self._end):
                selector.register(item, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if self._end in ready:
                    return
                if self._udp in ready:
                    wire, sender = self._udp.recvfrom(65535)
                    answer = self._answer(wire, False)
                    if answer is not None:
                        self._udp.sendto(answer, sender)
                if self._tcp in ready:
                    connection, _ = self._tcp.accept()
                    with connection, connection.makefile("rb") as stream:
                        length = int.from_bytes(stream.read(2), "big")
                        answer = self._answer(stream.read(length), True)
                        if answer is not None:
                            connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, wire: bytes, over_tcp: bool) -> bytes | None:
        query = dns.message.from_wire(wire)
        question = query.question[0]
        self.asked.append(
            (question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype), over_tcp)
        )
        answer = self.handler(query, over_tcp)
        return answer.to_wire(max_size=65535) if isinstance(answer, dns.message.Message) else answer
